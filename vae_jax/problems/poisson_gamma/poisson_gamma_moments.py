"""The truth about `PoissonGamma`: means and variances of its estimators by quadrature in float64."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vae_jax.problems import quadrature
from vae_jax.problems.exact_moments import (
    INFINITE,
    UNDEFINED,
    UNKNOWN,
    ExactMoments,
    averaged,
    constant,
    leave_one_out_moments,
    mean_alone,
)
from vae_jax.problems.quadrature import LatentNodes

if TYPE_CHECKING:
    from vae_jax.problems.poisson_gamma.poisson_gamma import PoissonGamma

Grid = Float[np.ndarray, "u v"]
LatentColumn = Float[np.ndarray, " n"]

NODES: Mapping[str, Callable[[float, float], LatentNodes]] = {
    "normal": quadrature.positive_normal,
    "log_normal": quadrature.log_normal,
}

FORMAL_DENSITY = 1e-18
NEAR_ZERO = 1e-3
"""Where q's density at zero, times its scale, is below FORMAL_DENSITY, the divergence of E[1/z^2] and E[1/z^4] there is
formal: draws under NEAR_ZERO loc come once in 1e20, and what lies just above adds under 1e-7 of the moment. The moments
of a pathwise gradient are then those over z > NEAR_ZERO loc."""


_PLAIN_VALUES = ("pathwise", "sticking_the_landing", "inverse_cdf", "score_function", "score_function+leave_one_out")
"""Estimators whose value is the plain average of independent log weights."""

_ALONG_THE_PATH = ("pathwise", "sticking_the_landing", "closed_form_entropy")
"""Estimators along a path that does not slow down at zero. Coupled draws are quantiles, whose path does."""


def exact_moments(
    problem: "PoissonGamma", params: Mapping[str, float], estimator: str
) -> Callable[[int], dict[str, ExactMoments]]:
    """The exact moments of the ELBO's estimate and of its gradient's, as a function of the number of samples.

    Where q's density at zero is not negligible, the pathwise and sticking-the-landing gradients hold a term in 1/z
    whose mean does not exist and whose variance is infinite, however steady a run of them looks.

    Args:
        problem: the data, the priors and the family.
        params: the parameters of q.
        estimator: a name in `vae_jax.estimators.ESTIMATORS`. Of some only the means are known.

    Returns:
        num_samples to a dict from "elbo" and the parameters' names to moments.

    Raises:
        ValueError: invalid parameters; later, fewer samples than the estimator needs.
    """
    problem.check_params(params)
    # What leaves the range of float64 is said to be unknown.
    with np.errstate(all="ignore"):
        grid = LatentGrid(problem, params, NODES[problem.family])
        by_parameter = {name: _gradient_moments(grid, name, estimator) for name in params}
        value = grid.moments(grid.log_weight)
        by_parameter["elbo"] = averaged(*value) if estimator in _PLAIN_VALUES else mean_alone(value[0])
    return lambda num_samples: {name: moments(num_samples) for name, moments in by_parameter.items()}


def truncation_effect(problem: "PoissonGamma", params: Mapping[str, float]) -> dict[str, float]:
    """How far truncating the normal family at zero moves the exact ELBO and its gradient.

    Measured from the untreated integrals: those over the positive part of the plain normals, with their own log density
    and score.
    """
    truncated, untreated = (
        LatentGrid(problem, params, nodes) for nodes in (quadrature.positive_normal, quadrature.untreated_normal)
    )

    def integrals(grid: LatentGrid) -> dict[str, float]:
        return {"elbo": grid.mean(grid.log_weight)} | {
            name: grid.mean(grid.log_weight * grid.score(name)) for name in params
        }

    before, after = integrals(untreated), integrals(truncated)
    return {name: after[name] - before[name] for name in after}


def _gradient_moments(grid: "LatentGrid", name: str, estimator: str) -> Callable[[int], ExactMoments]:
    if estimator == "score_function":
        return averaged(*grid.moments(grid.log_weight * grid.score(name)))
    if estimator == "score_function+leave_one_out":
        score = grid.score(name)
        mean, value_variance, _ = grid.moments(grid.log_weight)
        gradient, variance, kurtosis = grid.moments((grid.log_weight - mean) * score)
        return leave_one_out_moments(
            gradient=gradient,
            centred_square=variance + gradient**2,
            centred_kurtosis=kurtosis,
            value_variance=value_variance,
            score_square=grid.mean(score**2),
        )
    if estimator in ("pathwise", "sticking_the_landing"):
        if grid.diverges_at_zero(name):
            return constant(ExactMoments(mean=UNDEFINED, std=INFINITE, kurtosis=UNDEFINED))
        gradient = grid.path_gradient(name)
        if estimator == "pathwise":
            gradient = gradient - grid.score(name)
        return averaged(*grid.moments(gradient))
    if estimator in _ALONG_THE_PATH and grid.diverges_at_zero(name):
        return constant(ExactMoments(UNKNOWN, UNKNOWN, UNKNOWN))
    return mean_alone(grid.mean(grid.log_weight * grid.score(name)))


class LatentGrid:
    """Quadrature nodes over (u, v) under q, with the log weight log p(x, u, v) - log q(u, v) (nats) at each."""

    def __init__(
        self, problem: "PoissonGamma", params: Mapping[str, float], nodes: Callable[[float, float], LatentNodes]
    ) -> None:
        self.problem = problem
        self.u = nodes(params["loc_u"], params["scale_u"])
        self.v = nodes(params["loc_v"], params["scale_v"])
        u, v = np.ix_(self.u.z, self.v.z)
        log_joint = (
            problem.power_u * np.log(u)
            + problem.power_v * np.log(v)
            - problem.prior_u.rate * u
            - problem.prior_v.rate * v
            - len(problem.counts) * u * v
            + problem.log_constant
        )
        self.log_weight: Grid = log_joint - self.u.log_density[:, None] - self.v.log_density

    def mean(self, function: Grid) -> float:
        """E_q[function]."""
        return float(self.u.weight @ function @ self.v.weight)

    def moments(self, function: Grid) -> tuple[float, float, float]:
        """Mean, variance and kurtosis of a function under q."""
        mean = self.mean(function)
        square = (function - mean) ** 2
        variance = self.mean(square)
        return mean, variance, self.mean(square**2) / variance**2

    def score(self, name: str) -> Grid:
        """d log q / d parameter."""
        kind, latent = name.split("_")
        return self._spread(latent, getattr(self, latent).score[kind])

    def path_gradient(self, name: str) -> Grid:
        """d(log p - log q)/dz dz/d parameter, away from zero."""
        kind, latent = name.split("_")
        nodes = getattr(self, latent)
        slope = self._power(latent) / nodes.z - getattr(self.problem, f"prior_{latent}").rate - nodes.dlog_density
        coupling = len(self.problem.counts) * self._other(latent)
        formal = 0 < nodes.edge_density <= FORMAL_DENSITY
        path = np.where(nodes.z > NEAR_ZERO * nodes.loc, nodes.path[kind], 0) if formal else nodes.path[kind]
        return (self._spread(latent, slope) - coupling) * self._spread(latent, path)

    def diverges_at_zero(self, name: str) -> bool:
        """Whether the 1/z in the path gradient meets a density that does not vanish at zero."""
        kind, latent = name.split("_")
        nodes = getattr(self, latent)
        return nodes.edge_density > FORMAL_DENSITY and nodes.path_at_zero[kind] != 0 and self._power(latent) != 0

    def _power(self, latent: str) -> float:
        return getattr(self.problem, f"power_{latent}")

    def _other(self, latent: str) -> Grid:
        return self._spread("v", self.v.z) if latent == "u" else self._spread("u", self.u.z)

    def _spread(self, latent: str, column: LatentColumn) -> Grid:
        """A function of one latent over the grid of both."""
        column = column[:, None] if latent == "u" else column[None, :]
        return np.broadcast_to(column, (self.u.z.size, self.v.z.size))
