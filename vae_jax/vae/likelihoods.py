"""The distribution of the pixels of one image given what the decoder puts out (nats).

Pixels x are [X], floats from 0 to 1; outputs are [X], or [X, 256] under the categorical likelihood. A density is with
respect to that unit range.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import nn
from jaxtyping import Array, Float, Num

from vae_jax.typing import PRNGKey, Scalar

Pixels = Float[Array, " X"]
Outputs = Float[Array, "X *levels"]

NUM_LEVELS = 256


class PixelLikelihood(Protocol):
    """p(x|z) as a function of the decoder's outputs for z."""

    @property
    def outputs_per_pixel(self) -> int: ...

    def log_prob(self, outputs: Outputs, x: Num[Array, " X"]) -> Scalar: ...

    def mean(self, outputs: Outputs) -> Pixels: ...

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels: ...


@dataclass(frozen=True)
class Bernoulli:
    """Pixels of 0 and 1; outputs are logits."""

    outputs_per_pixel: int = 1

    def log_prob(self, outputs: Outputs, x: Num[Array, " X"]) -> Scalar:
        """sum_j [x_j l_j - log(1 + exp l_j)], finite and exact to rounding at any logit.

        Raises:
            ValueError: pixels of another number than the logits, or not from 0 to 1.
        """
        check_pixels(x, outputs)
        return (x * outputs - _softplus(outputs)).sum()

    def mean(self, outputs: Outputs) -> Pixels:
        """The probabilities of a 1."""
        return nn.sigmoid(outputs)

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels:
        """Pixels of 0 and 1."""
        return jax.random.bernoulli(key, nn.sigmoid(outputs)).astype(outputs.dtype)


@dataclass(frozen=True)
class GreyBernoulli(Bernoulli):
    """The Bernoulli's cross-entropy on grey pixels, as published models use it: no density, so its ELBO bounds none."""


@dataclass(frozen=True)
class ContinuousBernoulli:
    """Grey pixels; outputs are logits. The Bernoulli's cross-entropy plus the log of its normalising constant.

    Reference: Loaiza-Ganem & Cunningham (2019), eqs. 5 to 8.
    """

    outputs_per_pixel: int = 1

    def log_prob(self, outputs: Outputs, x: Num[Array, " X"]) -> Scalar:
        """sum_j [x_j l_j - log(1 + exp l_j) + log C(l_j)].

        Raises:
            ValueError: as for the Bernoulli.
        """
        check_pixels(x, outputs)
        # The softplus and the constant together are the log of the integral of exp(l x) over the unit range.
        return (x * outputs - _log_mean_exponential(outputs)).sum()

    def mean(self, outputs: Outputs) -> Pixels:
        """The mean of the density: 1 / (1 - exp(-l)) - 1 / l."""
        safe = _away_from_zero(outputs)
        return jnp.where(jnp.abs(outputs) < NEAR, 0.5 + outputs / 12, 1 / -jnp.expm1(-safe) - 1 / safe)

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels:
        """Pixels by the quantile function, log(1 + u (exp(l) - 1)) / l."""
        uniform = jax.random.uniform(key, outputs.shape, outputs.dtype)
        safe = _away_from_zero(outputs)
        size = jnp.abs(safe)
        # The quantile function of -|l|, whose exponential cannot overflow; that of |l| is its reflection.
        falling = -jnp.log1p(uniform * jnp.expm1(-size)) / size
        curved = jnp.where(safe < 0, falling, 1 - falling)
        return jnp.where(jnp.abs(outputs) < NEAR, uniform, jnp.clip(curved, 0, 1))


@dataclass(frozen=True)
class Gaussian:
    """Grey pixels; outputs are means. One scale for all pixels, which may be a parameter of the model."""

    log_scale: Scalar | float
    outputs_per_pixel: int = 1

    def log_prob(self, outputs: Outputs, x: Num[Array, " X"]) -> Scalar:
        """sum_j log Normal(x_j; outputs_j, scale).

        Raises:
            ValueError: as for the Bernoulli.
        """
        check_pixels(x, outputs)
        squares = ((x - outputs) ** 2).sum() * jnp.exp(-2 * self.log_scale)
        return -squares / 2 - x.size * (self.log_scale + math.log(2 * math.pi) / 2)

    def mean(self, outputs: Outputs) -> Pixels:
        """The means."""
        return outputs

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels:
        """Pixels that may lie outside 0 to 1."""
        return outputs + jnp.exp(self.log_scale) * jax.random.normal(key, outputs.shape, outputs.dtype)


@dataclass(frozen=True)
class Categorical:
    """Pixels of 256 levels, k / 255; outputs are 256 logits a pixel. A probability of levels, not a density."""

    outputs_per_pixel: int = NUM_LEVELS

    def log_prob(self, outputs: Outputs, x: Num[Array, " X"]) -> Scalar:
        """sum_j log softmax(outputs_j)[255 x_j].

        Raises:
            ValueError: as for the Bernoulli.
        """
        check_pixels(x, outputs[:, 0])
        levels = jnp.round(x * (NUM_LEVELS - 1)).astype(jnp.int32)
        return jnp.take_along_axis(nn.log_softmax(outputs), levels[:, None], axis=1).sum()

    def mean(self, outputs: Outputs) -> Pixels:
        """The mean level, from 0 to 1."""
        return nn.softmax(outputs) @ jnp.linspace(0, 1, NUM_LEVELS, dtype=outputs.dtype)

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels:
        """Levels, from 0 to 1."""
        return jax.random.categorical(key, outputs).astype(outputs.dtype) / (NUM_LEVELS - 1)


LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "grey_bernoulli": GreyBernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "categorical": Categorical,
}


def check_pixels(x: Num[Array, " X"], outputs: Float[Array, " X"]) -> None:
    """Refuses pixels that the decoder's outputs do not match, and what can be seen to be outside 0 to 1.

    Raises:
        ValueError: naming what came.
    """
    if x.shape != outputs.shape:
        raise ValueError(f"x must have the shape of the decoder's outputs, {outputs.shape}, got {x.shape}: reshape it")
    advice = "divide levels by 255, or binarize them"
    if jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"x must be floats from 0 to 1, got {x.dtype}: {advice}")
    # A traced array has no values yet: those are checked where data enter.
    if not isinstance(x, jax.core.Tracer) and not bool(jnp.all((x >= 0) & (x <= 1))):
        raise ValueError(f"x must be from 0 to 1, got values from {x.min():g} to {x.max():g}: {advice}")


def _softplus(logits: Outputs) -> Outputs:
    """log(1 + exp l) in a form that a processor does in two transcendental functions."""
    return jnp.maximum(logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(logits)))


NEAR = 1e-2
"""Logits nearer to zero than this are evaluated by series."""


def _away_from_zero(logits: Outputs) -> Outputs:
    """The logits, moved off zero where a series takes over, so that no gradient of the unused branch is NaN."""
    return jnp.where(jnp.abs(logits) < NEAR, 1.0, logits)


def _log_mean_exponential(logits: Outputs) -> Outputs:
    """log of the integral of exp(l x) over 0 to 1: max(l, 0) + log((1 - exp(-|l|)) / |l|)."""
    size = jnp.abs(_away_from_zero(logits))
    far = jnp.maximum(logits, 0) + jnp.log(-jnp.expm1(-size) / size)
    return jnp.where(jnp.abs(logits) < NEAR, logits / 2 + logits**2 / 24, far)
