"""Poisson regression: counts whose log mean is linear in standardised predictors, with normal priors."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from vae_jax.inference.fit.minibatches import Minibatched
from vae_jax.typing import Scalar

INTERCEPT = "(intercept)"


@dataclass(frozen=True, eq=False)
class PoissonRegression:
    """y_n ~ Poisson(exp(b_0 + sum_j b_j (x_nj - mean_j) / std_j)), b_0 ~ Normal(0, intercept_scale), b_j ~ Normal(0,
    prior_scale).

    The predictors are standardised, so that one prior suits all. A sample is the vector [P + 1] of coefficients, the
    intercept first.

    Args:
        names: of the P predictors.
        predictors: [N, P].
        response: natural numbers [N].
        prior_scale: standard deviation of a coefficient's prior.
        intercept_scale: standard deviation of the intercept's prior.

    Raises:
        ValueError: a predictor has only one value.
    """

    names: tuple[str, ...]
    predictors: Float[np.ndarray, "N P"]
    response: Float[np.ndarray, " N"]
    prior_scale: float = 2.5
    intercept_scale: float = 10.0
    means: Float[np.ndarray, " P"] = field(init=False)
    scales: Float[np.ndarray, " P"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", self.predictors.mean(0))
        object.__setattr__(self, "scales", self.predictors.std(0))
        for name, column, scale in zip(self.names, self.predictors.T, self.scales, strict=True):
            if not scale > 1e-9 * abs(column).max():
                raise ValueError(f"column '{name}' must have several values, got {column[0]:g} alone: leave it out")

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """The intercept's, then the predictors'."""
        return (INTERCEPT, *self.names)

    @property
    def start(self) -> Float[np.ndarray, " K"]:
        """The coefficients at which every mean is the mean count."""
        return np.array([np.log(self.response.mean() + 0.5 / len(self.response)), *np.zeros(len(self.names))])

    def design(self, predictors: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M K"]:
        """A one and the standardised predictors, row by row."""
        return np.column_stack([np.ones(len(predictors)), (predictors - self.means) / self.scales])

    def target(self, batch_size: int | None = None) -> Minibatched:
        """The log joint for steps that each see a batch of the data, by default all."""
        dtype = jnp.result_type(float)
        data = (jnp.asarray(self.design(self.predictors), dtype), jnp.asarray(self.response, dtype))
        size = len(self.response) if batch_size is None else batch_size
        return Minibatched(self.log_prior, _log_likelihood, data, batch_size=size)

    def log_prior(self, coefficients: Float[Array, " K"]) -> Scalar:
        """The log density of the prior at one vector of coefficients (nats)."""
        scales = jnp.array([self.intercept_scale] + [self.prior_scale] * len(self.names), coefficients.dtype)
        return dist.Normal(0.0, scales).log_prob(coefficients).sum()

    def log_joint(self, coefficients: Float[Array, " K"]) -> Scalar:
        """log p(y, b | x) of all data (nats)."""
        return self.target()(coefficients)

    def on_own_scale(self, coefficients: Float[np.ndarray, "*S K"]) -> Float[np.ndarray, "*S K"]:
        """The coefficients of the predictors that are not standardised, and the intercept that goes with them."""
        slopes = coefficients[..., 1:] / self.scales
        intercept = coefficients[..., :1] - (slopes * self.means).sum(-1, keepdims=True)
        return np.concatenate([intercept, slopes], -1)

    def dispersion(self, coefficients: Float[np.ndarray, " K"]) -> float:
        """Pearson's: the counts' variance about their fitted means, in units of a Poisson's, which is 1."""
        means = np.exp(self.design(self.predictors) @ coefficients)
        return float(((self.response - means) ** 2 / means).sum() / max(len(means) - len(coefficients), 1))


def _log_likelihood(coefficients: Float[Array, " K"], example: tuple[Array, Array]) -> Scalar:
    row, count = example
    return dist.Poisson(jnp.exp((row * coefficients).sum())).log_prob(count)
