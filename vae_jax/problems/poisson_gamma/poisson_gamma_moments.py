"""Means and variances of the estimators of the Poisson-Gamma ELBO and its gradient, by quadrature in float64."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from vae_jax.problems import quadrature
from vae_jax.problems.central_moments import CentralMoments, central_moments
from vae_jax.problems.exact_moments import (
    INFINITE,
    UNDEFINED,
    UNKNOWN,
    ExactMoments,
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    constant,
    leave_one_out_moments,
    mean_alone,
    moments_by_parameter,
)
from vae_jax.problems.poisson_gamma.poisson_gamma_density import PoissonGammaDensity
from vae_jax.problems.quadrature import LatentNodes

Grid = Float[np.ndarray, "u v"]
LatentColumn = Float[np.ndarray, " n"]

NodesOf: TypeAlias = Callable[[float, float], LatentNodes]
"""loc and scale of one latent to its nodes."""

NODES: Mapping[str, NodesOf] = {
    "normal": quadrature.positive_normal,
    "log_normal": quadrature.log_normal,
    "location_scale_normal": quadrature.location_scale_normal,
}

FORMAL_DENSITY = 1e-18
NEAR_ZERO = 1e-3
"""Where q's density at zero, times its scale, is below FORMAL_DENSITY, the divergence of E[1/z^2] and E[1/z^4] there is
formal: draws under NEAR_ZERO loc come once in 1e20, and what lies just above adds under 1e-7 of the moment. The moments
of a gradient along a path that does not slow down there are then those over z > NEAR_ZERO loc."""


_PLAIN_VALUES = ("pathwise", "sticking_the_landing", "inverse_cdf", "score_function", "score_function+leave_one_out")
"""Estimators whose value is the plain average of independent log weights."""

_ALONG_THE_PATH = ("pathwise", "sticking_the_landing", "closed_form_entropy")
"""Estimators along the family's own path. Others take quantiles, whose path slows down at zero."""


def exact_moments(
    density: PoissonGammaDensity, params: Mapping[str, float], estimator: str, nodes: NodesOf
) -> MomentsByParameter:
    """The exact moments of the ELBO's estimate and of its gradient's, as a function of the number of samples.

    Under "location_scale_normal", where q's density at zero is not negligible, the pathwise and sticking-the-landing
    gradients hold a term in 1/z whose mean does not exist and whose variance is infinite, however steady a run of them
    looks. Elsewhere their means are those of the estimates, which are biased.

    Args:
        density: log p(x, u, v).
        params: the parameters of q, which are valid.
        estimator: a name in `vae_jax.estimators.ESTIMATORS`. Of some only the means are known.
        nodes: the quadrature nodes of the family of q.

    Returns:
        num_samples to a dict from "elbo" and the parameters' names to moments.

    Raises:
        ValueError: later, fewer samples than the estimator needs.
    """
    # What leaves the range of float64 is said to be unknown.
    with np.errstate(all="ignore"):
        grid = LatentGrid(density, params, nodes)
        by_name = {name: _gradient_moments(grid, name, estimator) for name in params}
        value = grid.moments(grid.log_weight)
        by_name["elbo"] = averaged(value) if estimator in _PLAIN_VALUES else mean_alone(value.mean)
    return moments_by_parameter(by_name)


def _gradient_moments(grid: "LatentGrid", name: str, estimator: str) -> MomentsOfSamples:
    if estimator == "score_function":
        return averaged(grid.moments(grid.log_weight * grid.score(name)))
    if estimator == "score_function+leave_one_out":
        return leave_one_out_moments(grid.log_weight, grid.score(name), grid.moments)
    if estimator in ("pathwise", "sticking_the_landing") or (estimator == "inverse_cdf" and grid.is_quantile(name)):
        if grid.diverges_at_zero(name):
            return constant(ExactMoments(mean=UNDEFINED, std=INFINITE, kurtosis=UNDEFINED))
        gradient = grid.path_gradient(name)
        if estimator != "sticking_the_landing":
            gradient = gradient - grid.score(name)
        return averaged(grid.moments(gradient))
    if estimator in _ALONG_THE_PATH and grid.diverges_at_zero(name):
        return constant(ExactMoments(UNKNOWN, UNKNOWN, UNKNOWN))
    return mean_alone(grid.mean(grid.log_weight * grid.score(name)))


class LatentGrid:
    """Quadrature nodes over (u, v) under q, with the log weight log p(x, u, v) - log q(u, v) (nats) at each."""

    def __init__(self, density: PoissonGammaDensity, params: Mapping[str, float], nodes: NodesOf) -> None:
        self.density = density
        self.u = nodes(params["loc_u"], params["scale_u"])
        self.v = nodes(params["loc_v"], params["scale_v"])
        u, v = np.ix_(self.u.z, self.v.z)
        log_joint = density.log_joint(u, v, np.log(u), np.log(v))
        self.log_weight: Grid = log_joint - self.u.log_density[:, None] - self.v.log_density

    def mean(self, function: Grid) -> float:
        """E_q[function]."""
        return float(self.u.weight @ function @ self.v.weight)

    def moments(self, function: Grid) -> CentralMoments:
        """Mean, variance and kurtosis of a function under q."""
        return central_moments(function, self.mean, rounding=0.0)

    def score(self, name: str) -> Grid:
        """d log q / d parameter."""
        kind, latent = name.split("_")
        return self._spread(latent, getattr(self, latent).score[kind])

    def path_gradient(self, name: str) -> Grid:
        """d(log p - log q)/dz dz/d parameter, away from zero."""
        kind, latent = name.split("_")
        nodes = getattr(self, latent)
        slope = self.density.power(latent) / nodes.z - self.density.rate(latent) - nodes.dlog_density
        coupling = self.density.num_counts * self._other(latent)
        formal = 0 < nodes.edge_density <= FORMAL_DENSITY and not nodes.is_quantile
        path = np.where(nodes.z > NEAR_ZERO * nodes.loc, nodes.path[kind], 0) if formal else nodes.path[kind]
        return (self._spread(latent, slope) - coupling) * self._spread(latent, path)

    def is_quantile(self, name: str) -> bool:
        """Whether the path of a parameter's latent is that of its quantile function."""
        return getattr(self, name.split("_")[1]).is_quantile

    def diverges_at_zero(self, name: str) -> bool:
        """Whether the 1/z in the path gradient meets a density that does not vanish at zero."""
        kind, latent = name.split("_")
        nodes = getattr(self, latent)
        return nodes.edge_density > FORMAL_DENSITY and nodes.path_at_zero[kind] != 0 and self.density.power(latent) != 0

    def _other(self, latent: str) -> Grid:
        return self._spread("v", self.v.z) if latent == "u" else self._spread("u", self.u.z)

    def _spread(self, latent: str, column: LatentColumn) -> Grid:
        """A function of one latent over the grid of both."""
        column = column[:, None] if latent == "u" else column[None, :]
        return np.broadcast_to(column, (self.u.z.size, self.v.z.size))
