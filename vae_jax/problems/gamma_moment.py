"""Moments of a Gamma latent, whose sampler is reparameterized implicitly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from scipy.special import gammaln, polygamma, psi

from vae_jax.problems.central_moments import CentralMoments, weighted_moments
from vae_jax.problems.exact_moments import (
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    leave_one_out_moments,
    mean_alone,
    moments_by_parameter,
)
from vae_jax.problems.parameter_checks import check_names, check_positive
from vae_jax.problems.problem import ExpectedCost
from vae_jax.typing import Distributions, Latents, Scalar


class _Function(NamedTuple):
    """f(z, log z), and d E[f] / d concentration and / d rate."""

    of: Callable[[Any, Any], Any]
    by_concentration: Callable[[float, float], float]
    by_rate: Callable[[float, float], float]


FUNCTIONS: Mapping[str, _Function] = {
    "identity": _Function(lambda z, log_z: z, lambda a, b: 1 / b, lambda a, b: -a / b**2),
    "log": _Function(lambda z, log_z: log_z, lambda a, b: float(polygamma(1, a)), lambda a, b: -1 / b),
    "square": _Function(lambda z, log_z: z**2, lambda a, b: (2 * a + 1) / b**2, lambda a, b: -2 * a * (a + 1) / b**3),
}
"""Functions by name: E[z] = a / b, E[log z] = psi(a) - log b and E[z^2] = a (a + 1) / b^2, for z of concentration a and
rate b."""


@dataclass(frozen=True)
class GammaMoment(ExpectedCost):
    """The expectation E[f(z)] under z ~ Gamma(concentration, rate), where f is one of `FUNCTIONS`.

    The parameters are "concentration" and "rate". The exact variances are those of the score function, which sees the
    density alone. The variances of a pathwise gradient depend on the sampler, exact or approximate, and are not known.

    Args:
        function: "identity", "log" or "square".

    Raises:
        ValueError: an unknown function.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.GammaMoment("square")  # a (a + 1) / b^2
        >>> moments = problem.exact({"concentration": 2.0, "rate": 1.0}, "pathwise")(1)
        >>> print(f"{moments['cost'].mean.value:.2f}, gradient {moments['concentration'].mean.value:.2f}")
        6.00, gradient 5.00
        >>> moments["rate"].std.status
        'unknown'
    """

    function: str = "square"

    name: ClassVar[str] = "gamma"

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise ValueError(f"function must be one of {', '.join(FUNCTIONS)}, got {self.function}: use one of these")

    @property
    def default_params(self) -> dict[str, Any]:
        """A concentration of 2 and a rate of 1."""
        return {"concentration": 2.0, "rate": 1.0}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError for missing or unknown names and for values that are not positive."""
        check_names(params, ("concentration", "rate"))
        check_positive(params)

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """Gamma(concentration, rate)."""
        return dist.Gamma(params["concentration"], params["rate"])

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """f(z)."""
        del q
        return FUNCTIONS[self.function].of(latents, jnp.log(latents))

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments: all of the score function's, and of others the value's and the gradient's means."""
        self.check_params(params)
        nodes = _Nodes.of(self, params["concentration"], params["rate"])
        gradients = _GRADIENTS.get(estimator, _unknown_gradient)
        value = averaged(nodes.moments(nodes.f)) if estimator in _PLAIN_VALUES else mean_alone(nodes.mean(nodes.f))
        return moments_by_parameter(
            {"cost": value} | {name: gradients(nodes, name) for name in ("concentration", "rate")}
        )


class _Nodes(NamedTuple):
    """The trapezoid rule in log z, along which the density is smooth and falls off exponentially."""

    weights: np.ndarray
    f: np.ndarray
    score: dict[str, np.ndarray]
    """d log q / d parameter."""
    gradient: dict[str, float]

    @classmethod
    def of(cls, problem: GammaMoment, concentration: float, rate: float) -> "_Nodes":
        # exp(a t - e^t) falls to the left by e^-a a unit, and to the right doubly exponentially.
        log_z = np.linspace(psi(concentration) - 40 / min(concentration, 1), np.log(concentration + 400), 40_001)
        weights = np.exp(concentration * log_z - np.exp(log_z) - gammaln(concentration)) * (log_z[1] - log_z[0])
        z = np.exp(log_z) / rate
        function = FUNCTIONS[problem.function]
        f = function.of(z, np.log(z))
        score = {"concentration": log_z - psi(concentration), "rate": concentration / rate - z}
        gradient = {
            "concentration": function.by_concentration(concentration, rate),
            "rate": function.by_rate(concentration, rate),
        }
        return cls(weights, f, score, gradient)

    def mean(self, values: np.ndarray) -> float:
        return float(self.weights @ values)

    def moments(self, values: np.ndarray) -> CentralMoments:
        return weighted_moments(values, self.weights)


def _unknown_gradient(nodes: _Nodes, name: str) -> MomentsOfSamples:
    return mean_alone(nodes.gradient[name])


def _score_function(nodes: _Nodes, name: str) -> MomentsOfSamples:
    return averaged(nodes.moments(nodes.f * nodes.score[name]))


def _leave_one_out(nodes: _Nodes, name: str) -> MomentsOfSamples:
    return leave_one_out_moments(nodes.f, nodes.score[name], nodes.moments, gradient=nodes.gradient[name])


_GRADIENTS = {"score_function": _score_function, "score_function+leave_one_out": _leave_one_out}

_PLAIN_VALUES = (*_GRADIENTS, "pathwise", "sticking_the_landing", "inverse_cdf")
"""Estimators whose value is the plain average of f."""
