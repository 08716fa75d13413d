"""The distribution of the pixels of one image given what the decoder puts out (nats).

Pixels x are [X], floats from 0 to 1; outputs are [X], or [X, 256] under the categorical likelihood. A density is with
respect to that unit range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import nn
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from vae_jax.typing import PRNGKey, Scalar

Pixels = Float[Array, " X"]
Outputs = Float[Array, "X *levels"]

Observed = Num[Array, "..."]
"""Pixels [X]. Other shapes and types are refused with a message."""

NUM_LEVELS = 256


@runtime_checkable
class PixelLikelihood(Protocol):
    """p(x|z) as a function of the decoder's outputs for z."""

    @property
    def outputs_per_pixel(self) -> int: ...

    def log_prob(self, outputs: Outputs, x: Observed) -> Scalar: ...

    def mean(self, outputs: Outputs) -> Pixels: ...

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels: ...


@dataclass(frozen=True)
class Bernoulli:
    """Pixels of 0 and 1; outputs are logits."""

    outputs_per_pixel: int = 1

    def log_prob(self, outputs: Outputs, x: Observed) -> Scalar:
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

    def log_prob(self, outputs: Outputs, x: Observed) -> Scalar:
        """sum_j [x_j l_j - log(1 + exp l_j) + log C(l_j)].

        Raises:
            ValueError: as for the Bernoulli.
        """
        check_pixels(x, outputs)
        # The softplus and the constant together are the log of the integral of exp(l x) over the unit range.
        return (x * outputs - _log_mean_exponential(outputs)).sum()

    def mean(self, outputs: Outputs) -> Pixels:
        """The mean of the density: 1 / (1 - exp(-l)) - 1 / l."""
        return _mean_of_exponential(outputs)

    def sample(self, outputs: Outputs, key: PRNGKey) -> Pixels:
        """Pixels by the quantile function, log(1 + u (exp(l) - 1)) / l."""
        uniform = jax.random.uniform(key, outputs.shape, outputs.dtype)
        # The quantile function of -|l|, whose exponential cannot overflow; that of |l| is its reflection.
        # In half precision the least slope would be zero.
        least = max(LEAST_SLOPE, float(jnp.finfo(outputs.dtype).tiny))
        size = jnp.maximum(jnp.abs(outputs), least)
        falling = -jnp.log1p(uniform * jnp.expm1(-size)) / size
        return jnp.clip(jnp.where(outputs < 0, falling, 1 - falling), 0, 1)


@dataclass(frozen=True)
class Gaussian:
    """Grey pixels; outputs are means. One scale for all pixels, which may be a parameter of the model."""

    log_scale: Scalar | float
    outputs_per_pixel: int = 1

    def log_prob(self, outputs: Outputs, x: Observed) -> Scalar:
        """sum_j log Normal(x_j; outputs_j, scale).

        Raises:
            ValueError: as for the Bernoulli.
        """
        check_pixels(x, outputs)
        # Squares of small differences vanish in half precision, and precisions of small scales overflow.
        wide = jnp.promote_types(outputs.dtype, jnp.float32)
        log_scale = self.log_scale * jnp.ones((), wide)
        squares = ((x - outputs.astype(wide)) ** 2).sum() * jnp.exp(-2 * log_scale)
        total = -squares / 2 - x.size * (log_scale + math.log(2 * math.pi) / 2)
        return total.astype(jnp.result_type(x, outputs, self.log_scale))

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

    def log_prob(self, outputs: Outputs, x: Observed) -> Scalar:
        """sum_j log softmax(outputs_j)[255 x_j].

        Raises:
            ValueError: as for the Bernoulli.
        """
        check_pixels(x, outputs[:, 0])
        levels = jnp.round(x * (NUM_LEVELS - 1)).astype(jnp.int32)
        return jnp.take_along_axis(nn.log_softmax(outputs), levels[:, None], axis=1).sum()

    def mean(self, outputs: Outputs) -> Pixels:
        """The mean level, from 0 to 1."""
        return (nn.softmax(outputs) * jnp.linspace(0, 1, NUM_LEVELS, dtype=outputs.dtype)[None]).sum(1)

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


def check_pixels(x: Observed, outputs: Float[Array, "..."]) -> None:
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
    if isinstance(x, Tracer):
        return
    # As a NumPy array, for JAX would trace the comparison of a constant too.
    values = np.asarray(x)
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"x must be from 0 to 1, got values from {lowest:g} to {highest:g}: {advice}")


def _softplus(logits: Outputs) -> Outputs:
    """log(1 + exp l) in a form that a processor does in two transcendental functions."""
    # Both by the same comparison: at a logit of 0 the maximum's and the modulus's own derivatives give no half.
    positive = logits >= 0
    return jnp.where(positive, logits, 0) + jnp.log1p(jnp.exp(jnp.where(positive, -logits, logits)))


LEAST_SLOPE = 1e-20
"""Smallest logit, in modulus, that samples of a continuous Bernoulli are drawn with: below it they are uniform."""

NEAR = 0.5
"""Logits nearer to zero than this are evaluated by series, which lose no digits there."""

BERNOULLI_NUMBERS = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
"""B_2 to B_14: as many as a logit below `NEAR` takes in float64."""

MEAN_SERIES = tuple(number / math.factorial(2 * n) for n, number in enumerate(BERNOULLI_NUMBERS, 1))
"""Coefficients of l, l^3, ... in the mean of the density proportional to exp(l x) on 0 to 1, less 1/2."""

LOG_SERIES = tuple(coefficient / (2 * n) for n, coefficient in enumerate(MEAN_SERIES, 1))
"""Coefficients of l^2, l^4, ... in the log of its integral, less l / 2."""


@jax.custom_jvp
def _log_mean_exponential(logits: Outputs) -> Outputs:
    """log of the integral of exp(l x) over 0 to 1: max(l, 0) + log((1 - exp(-|l|)) / |l|)."""
    size = _away_from_zero(logits)
    far = jnp.maximum(logits, 0) + jnp.log((1 - jnp.exp(-size)) / size)
    near = logits / 2 + logits * _odd_series(LOG_SERIES, logits)
    return jnp.where(jnp.abs(logits) < NEAR, near, far)


_log_mean_exponential.defjvps(lambda tangent, _, logits: tangent * _mean_of_exponential(logits))


def _mean_of_exponential(logits: Outputs) -> Outputs:
    """The mean of the density proportional to exp(l x) on 0 to 1: 1 / (1 - exp(-l)) - 1 / l."""
    size = _away_from_zero(logits)
    # Of -|l|, whose exponential cannot overflow; that of |l| is its reflection.
    falling = 1 / size - jnp.exp(-size) / (1 - jnp.exp(-size))
    far = jnp.where(logits < 0, falling, 1 - falling)
    return jnp.where(jnp.abs(logits) < NEAR, 0.5 + _odd_series(MEAN_SERIES, logits), far)


def _away_from_zero(logits: Outputs) -> Outputs:
    """|l|, moved off zero where a series takes over, so that no gradient of the unused branch is NaN."""
    size = jnp.abs(logits)
    return jnp.where(size < NEAR, NEAR, size)


def _odd_series(coefficients: Sequence[float], logits: Outputs) -> Outputs:
    """sum_n c_n l^(2n - 1), of logits below `NEAR`: no more is asked of it elsewhere than to have a finite gradient."""
    near = jnp.clip(logits, -NEAR, NEAR)
    total = jnp.zeros_like(near)
    for coefficient in reversed(coefficients):
        total = total * near**2 + coefficient
    return total * near
