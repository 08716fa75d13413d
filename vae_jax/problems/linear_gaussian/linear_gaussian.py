"""One Gaussian latent seen through Gaussian noise, whose posterior, evidence and estimator variances are exact."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpyro.distributions as dist
from scipy.stats import norm

from vae_jax import bounds, distributions
from vae_jax.problems.exact_moments import (
    UNKNOWN,
    Exact,
    ExactMoments,
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    leave_one_out_moments,
)
from vae_jax.problems.quadrature import noise_moments
from vae_jax.typing import Distributions, Estimator, Latents, PRNGKey, Scalar


class LocScale(NamedTuple):
    """A location and a standard deviation."""

    loc: float
    scale: float


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(prior_loc, prior_scale^2), x ~ N(z, noise_scale^2), with q = Normal(loc, scale).

    Parameters are the dict loc, scale. At those of `posterior` the ELBO is `log_evidence`.

    Args:
        x: the datum.
        prior_loc, prior_scale: of the latent.
        noise_scale: of the datum about the latent.

    Raises:
        ValueError: a number that is not finite, or a scale that is not positive.

    Reference: Roeder, Wu & Duvenaud (2017), section 3, for the variance at and about the posterior.
    """

    x: float = 1.5
    prior_loc: float = 0.0
    prior_scale: float = 1.0
    noise_scale: float = 1.0

    name: ClassVar[str] = "linear-gaussian"
    value_name: ClassVar[str] = "elbo"

    def __post_init__(self) -> None:
        _check_finite({"x": self.x, "prior_loc": self.prior_loc})
        _check_positive({"prior_scale": self.prior_scale, "noise_scale": self.noise_scale})

    @property
    def posterior(self) -> LocScale:
        """p(z | x)."""
        precision = self.prior_scale**-2 + self.noise_scale**-2
        loc = (self.prior_loc * self.prior_scale**-2 + self.x * self.noise_scale**-2) / precision
        return LocScale(loc, precision**-0.5)

    @property
    def log_evidence(self) -> float:
        """log p(x) (nats)."""
        return float(norm.logpdf(self.x, self.prior_loc, math.hypot(self.prior_scale, self.noise_scale)))

    @property
    def default_params(self) -> dict[str, float]:
        """Two thirds of a posterior standard deviation below the posterior, and a little wider than it."""
        posterior = self.posterior
        return {"loc": posterior.loc - posterior.scale / 1.5, "scale": 1.2 * posterior.scale}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError for missing or unknown names and for values that are no loc and scale."""
        if set(params) != {"loc", "scale"}:
            raise ValueError(f"params must be loc, scale, got {', '.join(params) or 'none'}: name both")
        _check_finite(params)
        _check_positive({"scale": params["scale"]})

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """Normal(loc, scale)."""
        return dist.Normal(params["loc"], params["scale"])

    def log_joint(self, latents: Latents) -> Scalar:
        """log p(x, z) (nats)."""
        prior = dist.Normal(self.prior_loc, self.prior_scale)
        return prior.log_prob(latents) + dist.Normal(latents, self.noise_scale).log_prob(self.x)

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """log p(x, z) - log q(z) (nats)."""
        return self.log_joint(latents) - distributions.log_prob(q, latents)

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """The evidence lower bound of `q(params)` as a stochastic loss of its parameters."""
        return bounds.elbo(self.log_joint, self.q(params), key, num_samples, estimator=estimator)

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the ELBO and of its gradient, as a function of the number of samples.

        Args:
            params: of q.
            estimator: a name in `ESTIMATORS`. Of others than those in `_MOMENTS` only the means are known.

        Raises:
            ValueError: invalid parameters; later, fewer samples than the estimator needs.
        """
        self.check_params(params)
        terms = _Terms(self.posterior, self.log_evidence, LocScale(float(params["loc"]), float(params["scale"])))
        by_parameter = _MOMENTS.get(estimator, _means_alone)(terms)
        return lambda num_samples: {name: moments(num_samples) for name, moments in by_parameter.items()}


def _check_finite(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}: change it")


def _check_positive(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}: change it")


ByParameter = dict[str, MomentsOfSamples]
Term = Callable[[Any], Any]
"""Noise to what one sample adds to an estimate."""


@dataclass(frozen=True)
class _Terms:
    """One sample's log weight and its derivatives, as functions of the noise (z - loc) / scale."""

    posterior: LocScale
    log_evidence: float
    q: LocScale

    def log_weight(self, noise: Any) -> Any:
        """The log of p(x, z) / q(z)."""
        standard = (self.q.loc + self.q.scale * noise - self.posterior.loc) / self.posterior.scale
        ratio = math.log(self.q.scale / self.posterior.scale)
        return self.log_evidence + ratio + (noise**2 - standard**2) / 2

    def without_log_q(self, noise: Any) -> Any:
        """The same with the entropy of q in the place of -log q."""
        return self.log_weight(noise) + (1 - noise**2) / 2

    def path_slope(self, noise: Any) -> Any:
        """The derivative of log p - log q by z, zero wherever q is the posterior."""
        shift = (self.posterior.loc - self.q.loc) / self.posterior.scale**2
        return shift + noise * (self.posterior.scale**2 - self.q.scale**2) / (self.posterior.scale**2 * self.q.scale)

    def score(self, name: str) -> Term:
        """The derivative of log q by a parameter."""
        return lambda noise: (noise if name == "loc" else noise**2 - 1) / self.q.scale

    def path_derivative(self, name: str) -> Term:
        """The slope along the path."""
        return lambda noise: self.path_slope(noise) * (noise if name == "scale" else 1)

    def total_derivative(self, name: str) -> Term:
        """The same less the score."""
        return lambda noise: self.path_derivative(name)(noise) - self.score(name)(noise)

    def weighted_score(self, name: str) -> Term:
        """The log weight times the score."""
        return lambda noise: self.log_weight(noise) * self.score(name)(noise)


def _by_terms(value: Term, gradient: Callable[[str], Term]) -> ByParameter:
    """Moments of averages of one term a sample."""
    terms = {"elbo": value} | {name: gradient(name) for name in ("loc", "scale")}
    return {name: averaged(*noise_moments(term)) for name, term in terms.items()}


def _by_pairs(value: Term, gradient: Callable[[str], Term]) -> ByParameter:
    """Moments of averages over pairs of opposite noise."""

    def pair(term: Term) -> Term:
        return lambda noise: (term(noise) + term(-noise)) / 2

    by_parameter = _by_terms(pair(value), lambda name: pair(gradient(name)))
    return {
        name: lambda num_samples, moments=moments: moments(num_samples // 2) for name, moments in by_parameter.items()
    }


def _of_leave_one_out(terms: _Terms) -> ByParameter:
    value = noise_moments(terms.log_weight)

    def gradient(name: str) -> MomentsOfSamples:
        score = terms.score(name)
        centred = noise_moments(lambda noise: (terms.log_weight(noise) - value.mean) * score(noise))
        return leave_one_out_moments(
            gradient=centred.mean,
            centred_square=centred.variance + centred.mean**2,
            centred_kurtosis=centred.kurtosis,
            value_variance=value.variance,
            score_square=noise_moments(lambda noise: np.square(score(noise))).mean,
        )

    return {"elbo": averaged(*value)} | {name: gradient(name) for name in ("loc", "scale")}


def _means_alone(terms: _Terms) -> ByParameter:
    """Of an unbiased estimator whose variance is not known."""

    def mean_of(term: Term) -> MomentsOfSamples:
        mean = Exact("finite", noise_moments(term).mean)
        return lambda num_samples: ExactMoments(mean, UNKNOWN, UNKNOWN)

    return {"elbo": mean_of(terms.log_weight)} | {
        name: mean_of(terms.path_derivative(name)) for name in ("loc", "scale")
    }


_MOMENTS: Mapping[str, Callable[[_Terms], ByParameter]] = {
    "pathwise": lambda terms: _by_terms(terms.log_weight, terms.total_derivative),
    # A normal's quantile function is its path.
    "inverse_cdf": lambda terms: _by_terms(terms.log_weight, terms.total_derivative),
    "sticking_the_landing": lambda terms: _by_terms(terms.log_weight, terms.path_derivative),
    # Along the path log q is a constant less the log scale, so the gradient is the total derivative.
    "closed_form_entropy": lambda terms: _by_terms(terms.without_log_q, terms.total_derivative),
    "score_function": lambda terms: _by_terms(terms.log_weight, terms.weighted_score),
    "score_function+leave_one_out": _of_leave_one_out,
    "pathwise+antithetic_pairs": lambda terms: _by_pairs(terms.log_weight, terms.total_derivative),
    "score_function+antithetic_pairs": lambda terms: _by_pairs(terms.log_weight, terms.weighted_score),
}
