"""A variational distribution that is the posterior shifted, so that every multi-sample bound is exact."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy.stats import norm

from vae_jax.problems.central_moments import CentralMoments, weighted_moments
from vae_jax.problems.exact_moments import (
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    leave_one_out_moments,
    mean_alone,
    moments_by_parameter,
)
from vae_jax.problems.parameter_checks import check_finite, check_names, element_names
from vae_jax.problems.problem import EvidenceLowerBound
from vae_jax.problems.quadrature import standard_normal_nodes
from vae_jax.typing import Distributions, Latents, Scalar


@dataclass(frozen=True)
class ShiftedPosterior(EvidenceLowerBound):
    """The model z ~ N(0, I), x ~ N(z, I), with a q that is the posterior shifted.

    The only parameter is the vector shift [D], in units of the posterior's standard deviation. With d^2 = |shift|^2 the
    log weight, less log p(x), is N(-d^2/2, d^2) whatever D is.

    So the ELBO is log p(x) - d^2/2, and its gradient is -shift. The expectation of every bound of K samples is an
    integral over one number. Sticking the landing has no variance here at any shift.

    Args:
        shift: the default parameter; its length is D.
        x: the datum, the same in every dimension.

    Raises:
        ValueError: no shift, or a number that is not finite.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.ShiftedPosterior(shift=(0.6, 0.8))
        >>> params = problem.default_params
        >>> gaps = [problem.log_evidence - problem.exact_bound(params, k) for k in (1, 10, 100)]
        >>> print([f"{gap:.3f}" for gap in gaps])  # the ELBO's gap is |shift|^2 / 2
        ['0.500', '0.074', '0.008']

    Reference: Rainforth et al. (2018), section 4, and Tucker, Lawson, Gu & Maddison (2019), section 6.1, for bounds on
        linear-Gaussian models off the posterior.
    """

    shift: Sequence[float] = (0.4, -0.3)
    x: float = 1.0

    name: ClassVar[str] = "shifted-posterior"

    def __post_init__(self) -> None:
        # Any sequence is taken, and kept as what can be hashed.
        object.__setattr__(self, "shift", tuple(float(value) for value in self.shift))
        self.check_params(self.default_params)
        check_finite({"x": self.x})

    @property
    def num_latents(self) -> int:
        """D."""
        return len(self.shift)

    @property
    def posterior_loc(self) -> float:
        """The mean of p(z | x), in every dimension."""
        return self.x / 2

    @property
    def posterior_scale(self) -> float:
        """The standard deviation of p(z | x), in every dimension."""
        return math.sqrt(0.5)

    @property
    def log_evidence(self) -> float:
        """log p(x) (nats)."""
        return self.num_latents * float(norm.logpdf(self.x, 0.0, math.sqrt(2)))

    @property
    def default_params(self) -> dict[str, Any]:
        """The shift that was given."""
        return {"shift": self.shift}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError for missing or unknown names, another length, and values that are not finite."""
        check_names(params, ("shift",))
        shift = np.asarray(params["shift"], float)
        if shift.shape != (self.num_latents,) or shift.size == 0:
            raise ValueError(f"shift must be {max(self.num_latents, 1)} numbers, got shape {shift.shape}: change it")
        if not np.isfinite(shift).all():
            raise ValueError(f"shift must be finite, got {shift.tolist()}: change it")

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """The posterior moved by the shift."""
        loc = self.posterior_loc + self.posterior_scale * jnp.asarray(params["shift"])
        return dist.Normal(loc, self.posterior_scale).to_event(1)

    def log_joint(self, latents: Latents) -> Scalar:
        """log p(x, z) (nats)."""
        return (dist.Normal(0.0, 1.0).log_prob(latents) + dist.Normal(latents, 1.0).log_prob(self.x)).sum()

    def squared_distance(self, params: Mapping[str, Any]) -> float:
        """d^2, the squared Mahalanobis distance of q from the posterior, which is also Var(log w)."""
        return float(np.square(np.asarray(params["shift"], float)).sum())

    def exact_bound(self, params: Mapping[str, Any], num_samples: int, *, alpha: float = 0.0) -> float:
        """Mean of a bound from K samples (nats): the importance-weighted bound, or the Rényi bound of order alpha.

        Raises:
            ValueError: invalid parameters, or no samples.
        """
        self.check_params(params)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}: raise it")
        square = self.squared_distance(params)
        power = 1 - alpha
        if power == 0:
            return self.log_evidence - square / 2
        # The powers of the weights are log-normal too. Scaled to a mean of one they leave log p - alpha d^2 / 2.
        scaled = _mean_log_mean(abs(power) * math.sqrt(square), num_samples)
        return self.log_evidence - alpha * square / 2 + scaled / power

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the ELBO and of its gradient, as a function of the number of samples.

        Args:
            params: the parameters of q.
            estimator: a name in `ESTIMATORS`. For names that are not in `_MOMENTS` only the means are known.

        Raises:
            ValueError: invalid parameters; later, fewer samples than the estimator needs.
        """
        self.check_params(params)
        shift = [float(value) for value in params["shift"]]
        of_grid = _MOMENTS.get(estimator, _mean_alone)
        by_name = {"elbo": of_grid(_Grid(self.log_evidence, shift, None))} | {
            name: of_grid(_Grid(self.log_evidence, shift, index))
            for index, name in enumerate(element_names("shift", shift))
        }
        return moments_by_parameter(by_name)


_STEP = 0.05
"""Step of the sums over the noise and over log t."""


def _mean_log_mean(scale: float, num_samples: int) -> float:
    """E[log 1/K sum_k w_k] for independent w = exp(scale noise - scale^2 / 2), at any K.

    log s is the integral of {exp(-t) - exp(-t s)} / t over t > 0, and the mean of exp(-t s) for the mean of the weights
    is a power of that for one of them.
    """
    if scale == 0:
        return 0.0
    noise, mass = standard_normal_nodes(_STEP)
    weights = np.exp(scale * noise - scale**2 / 2)
    # In log t. Below, the integrand falls as t^2; above, as exp(-(log t)^2 / (2 scale^2)).
    log_t = np.arange(-20.0, math.log(num_samples) + 5 + 10 * scale + scale**2 / 2, _STEP)
    t = np.exp(log_t)[:, None]
    # Less one, so that no digit is lost where t is small; the masses may add up to more than one by rounding.
    less_one = np.maximum(np.expm1(-t * weights[None] / num_samples) @ mass, np.finfo(float).epsneg - 1)
    exponent = num_samples * np.log1p(less_one)
    return float((np.expm1(-t[:, 0]) - np.expm1(exponent)).sum() * _STEP)


_POINTS, _MASSES = np.polynomial.hermite_e.hermegauss(16)


class _Grid:
    """One sample's terms over the noise along a dimension and, as one number, along the others.

    They are polynomials in the two, so that a Gauss-Hermite rule is exact.
    """

    def __init__(self, log_evidence: float, shift: Sequence[float], index: int | None) -> None:
        along = shift[index or 0]
        across = math.sqrt(max(sum(value**2 for value in shift) - along**2, 0.0))
        noise, other = np.meshgrid(_POINTS, _POINTS)
        self.mass = np.outer(_MASSES, _MASSES) / _MASSES.sum() ** 2
        self.of_value = index is None
        self.log_weight = log_evidence - (along**2 + across**2) / 2 - along * noise - across * other
        self.score = noise
        self.path = np.full_like(noise, -along)

    def moments(self, values: Any) -> CentralMoments:
        return weighted_moments(values, self.mass)


def _by_term(value: Callable[[_Grid], Any], gradient: Callable[[_Grid], Any]) -> Callable[[_Grid], MomentsOfSamples]:
    return lambda grid: averaged(grid.moments((value if grid.of_value else gradient)(grid)))


def _of_leave_one_out(grid: _Grid) -> MomentsOfSamples:
    if grid.of_value:
        return averaged(grid.moments(grid.log_weight))
    return leave_one_out_moments(grid.log_weight, grid.score, grid.moments)


def _mean_alone(grid: _Grid) -> MomentsOfSamples:
    return mean_alone(grid.moments(grid.log_weight if grid.of_value else grid.path).mean)


_MOMENTS: Mapping[str, Callable[[_Grid], MomentsOfSamples]] = {
    "pathwise": _by_term(lambda grid: grid.log_weight, lambda grid: grid.path - grid.score),
    "inverse_cdf": _by_term(lambda grid: grid.log_weight, lambda grid: grid.path - grid.score),
    "sticking_the_landing": _by_term(lambda grid: grid.log_weight, lambda grid: grid.path),
    "score_function": _by_term(lambda grid: grid.log_weight, lambda grid: grid.log_weight * grid.score),
    "score_function+leave_one_out": _of_leave_one_out,
}
