"""One Gaussian latent seen through Gaussian noise, whose posterior, evidence and estimator variances are exact."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpyro.distributions as dist
from scipy.stats import norm

from vae_jax.problems.exact_moments import MomentsByParameter, moments_by_parameter
from vae_jax.problems.noise_terms import (
    SCORE_FUNCTION_MOMENTS,
    NamedMoments,
    Term,
    Terms,
    TermsOfNormal,
    means_alone,
    pair_averages,
    sample_averages,
)
from vae_jax.problems.normal_latent import NormalLatent
from vae_jax.problems.parameter_checks import check_finite, check_positive
from vae_jax.problems.problem import EvidenceLowerBound
from vae_jax.typing import Latents, Scalar


class LocScale(NamedTuple):
    """A location and a standard deviation."""

    loc: float
    scale: float


@dataclass(frozen=True)
class LinearGaussian(NormalLatent, EvidenceLowerBound):
    """One Gaussian latent z ~ N(prior_loc, prior_scale^2), seen as x ~ N(z, noise_scale^2).

    The variational distribution is q = Normal(loc, scale), and its parameters are a dict with the keys loc and scale.
    At those of `posterior` the ELBO is `log_evidence`.

    Args:
        x: the datum.
        prior_loc, prior_scale: the mean and the standard deviation of the latent's prior.
        noise_scale: the standard deviation of the datum about the latent.

    Raises:
        ValueError: a number that is not finite, or a scale that is not positive.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> print(f"{problem.posterior.loc:.2f}, {problem.posterior.scale:.3f}")  # x / 2 and sqrt(1 / 2)
        0.75, 0.707
        >>> params = problem.posterior._asdict()
        >>> elbo = problem.estimate(params, jax.random.key(0), 10, estimator=vj.pathwise)
        >>> print(f"{elbo:.3f}, exact {problem.log_evidence:.3f}")
        -1.828, exact -1.828

    Reference: Roeder, Wu & Duvenaud (2017), section 3, for the variance at and about the posterior.
    """

    x: float = 1.5
    prior_loc: float = 0.0
    prior_scale: float = 1.0
    noise_scale: float = 1.0

    name: ClassVar[str] = "linear-gaussian"

    def __post_init__(self) -> None:
        check_finite({"x": self.x, "prior_loc": self.prior_loc})
        check_positive({"prior_scale": self.prior_scale, "noise_scale": self.noise_scale})

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

    def log_joint(self, latents: Latents) -> Scalar:
        """log p(x, z) (nats)."""
        prior = dist.Normal(self.prior_loc, self.prior_scale)
        return prior.log_prob(latents) + dist.Normal(latents, self.noise_scale).log_prob(self.x)

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the ELBO and of its gradient, as a function of the number of samples.

        Args:
            params: the parameters of q.
            estimator: a name in `ESTIMATORS`. For names that are not in `_MOMENTS` only the means are known.

        Raises:
            ValueError: invalid parameters; later, fewer samples than the estimator needs.
        """
        self.check_params(params)
        terms = LogWeightOfNormal(self.posterior, self.log_evidence, float(params["loc"]), float(params["scale"]))
        return moments_by_parameter(_MOMENTS.get(estimator, _of_unknown_variance)(terms))


@dataclass(frozen=True)
class LogWeightOfNormal(TermsOfNormal):
    """One sample's log weight and its derivatives."""

    value_name: ClassVar[str] = "elbo"

    posterior: LocScale
    log_evidence: float
    loc: float
    scale: float

    def value(self, noise: Any) -> Any:
        """The log of p(x, z) / q(z)."""
        standard = (self.loc + self.scale * noise - self.posterior.loc) / self.posterior.scale
        ratio = math.log(self.scale / self.posterior.scale)
        return self.log_evidence + ratio + (noise**2 - standard**2) / 2

    def without_log_q(self, noise: Any) -> Any:
        """The log weight with the entropy of q in the place of -log q."""
        return self.value(noise) + (1 - noise**2) / 2

    def path_slope(self, noise: Any) -> Any:
        """The derivative of log p - log q by z, zero wherever q is the posterior."""
        shift = (self.posterior.loc - self.loc) / self.posterior.scale**2
        return shift + noise * (self.posterior.scale**2 - self.scale**2) / (self.posterior.scale**2 * self.scale)

    def total_derivative(self, name: str) -> Term:
        """The derivative along the path less the score."""
        return lambda noise: self.path_derivative(name)(noise) - self.score(name)(noise)

    def total_terms(self) -> Terms:
        """The log weight and its total derivatives."""
        return self.terms(self.total_derivative)


def _of_unknown_variance(terms: LogWeightOfNormal) -> NamedMoments:
    return means_alone(terms.path_terms())


def _of_pathwise(terms: LogWeightOfNormal) -> NamedMoments:
    return sample_averages(terms.total_terms())


def _of_closed_form_entropy(terms: LogWeightOfNormal) -> NamedMoments:
    # Along the path log q is a constant less the log scale, so the gradient is the total derivative.
    return sample_averages({**terms.total_terms(), "elbo": terms.without_log_q})


_MOMENTS: Mapping[str, Callable[[LogWeightOfNormal], NamedMoments]] = {
    "pathwise": _of_pathwise,
    # A normal's quantile function is its path.
    "inverse_cdf": _of_pathwise,
    "sticking_the_landing": lambda terms: sample_averages(terms.path_terms()),
    "closed_form_entropy": _of_closed_form_entropy,
    "pathwise+antithetic_pairs": lambda terms: pair_averages(terms.total_terms()),
    **SCORE_FUNCTION_MOMENTS,
}
