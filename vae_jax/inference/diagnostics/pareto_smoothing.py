"""Pareto-smoothed importance sampling: how heavy the tail of the weights is, and weights with a calmer tail."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.typing import Scalar

SHORTEST_TAIL = 5
"""Weights that a generalised Pareto distribution can be fitted to: a fifth of 25 samples."""

HIGHEST_RELIABLE_SHAPE = 0.7
"""However many samples there are. Above it the estimates of the mean and of its error are both unreliable."""

PRIOR_SHAPE = 0.5
PRIOR_SIZE = 10
"""Tail weights that the prior of the shape counts for: Vehtari et al. (2024), appendix G."""


class GeneralizedParetoTail(NamedTuple):
    """Generalised Pareto tail: P(w - cutoff > x) = (1 + k x / scale)^(-1 / k) for the weights w above the cutoff."""

    k: Scalar
    """Shape of the tail: moments of an order of 1 / k and above are infinite.

    It is infinite where the tail holds too few different weights for a fit, and minus infinity where all are equal.
    """
    log_scale: Scalar
    """Log of the scale (nats); where `k` is not finite, it is `k`."""
    log_cutoff: Scalar
    """The largest log weight that is not in the tail (nats)."""


class ParetoSmoothed(NamedTuple):
    """Importance weights whose largest are what a generalised Pareto distribution expects them to be."""

    k: Scalar
    """The shape of the tail of the raw weights, see `GeneralizedParetoTail`."""
    log_weights: Float[Array, " S"]
    """Self-normalised: their exponentials add up to one."""
    effective_sample_size: Scalar
    """One over the sum of the squared weights, which is trustworthy where `k` is below `reliability_threshold`."""


@jax.jit
def pareto_smoothed(log_weights: Float[Array, " S"]) -> ParetoSmoothed:
    """Smooths importance weights and measures how far they can be relied on.

    The largest weights are replaced by the expected order statistics of the generalised Pareto distribution fitted to
    them, none above the largest raw weight. This lowers the variance of an estimate for a small bias. The shape `k` of
    the tail says whether the estimate can be trusted: compare it with `reliability_threshold`. It describes the samples
    at hand: a region that the proposal never reached is not seen.

    The fit works on logarithms throughout, so weights may differ by any number of orders of magnitude. The function is
    pure, and may be compiled and vmapped over problems.

    Args:
        log_weights: log p(x, z) - log q(z) (nats), up to a constant, at S independent samples of q. Minus infinity is
            a weight of zero.

    Returns:
        The smoothed weights in the order of the raw ones. With fewer than 25 samples, or with a tail most of which
        ties with the cutoff, `k` is infinite and the weights stay as they are. Where all of the tail is one value, as
        for constant weights, `k` is minus infinity. A weight that is NaN or infinite, or no weight above zero, makes
        everything NaN.

    Raises:
        ValueError: no log weights.

    Example:
        Samples of Normal(0, 1) have weights with a heavy tail where the target is twice as wide:

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference import pareto_smoothed, reliability_threshold
        >>> z = Normal(0, 1).sample(jax.random.key(0), (1000,))
        >>> wide, close = (pareto_smoothed(Normal(0, std).log_prob(z) - Normal(0, 1).log_prob(z)) for std in (2.0, 1.1))
        >>> bool(close.k < reliability_threshold(1000)), bool(close.k < wide.k)
        (True, True)
        >>> f"{jax.numpy.exp(wide.log_weights).sum():.3f}"
        '1.000'

    Reference: Vehtari, Simpson, Gelman, Yao & Gabry (2024), "Pareto smoothed importance sampling", algorithm 1.
    """
    num_samples = log_weights.shape[0]
    length = tail_length(num_samples)
    log_weights = log_weights - log_weights.max()
    if length < SHORTEST_TAIL:
        return _self_normalised(_unknown_shape(log_weights), log_weights)
    top, places = lax.top_k(log_weights, length + 1)
    tail = _fit(top)
    expected = jnp.where(jnp.isfinite(tail.k), _expected_order_statistics(tail, length), top[:length])
    smoothed = log_weights.at[places[:length]].set(jnp.minimum(expected, top[0]))
    return _self_normalised(tail.k, smoothed)


@partial(jax.jit, static_argnums=1)
def fit_tail(top_log_weights: Float[Array, " T"], num_samples: int) -> GeneralizedParetoTail:
    """Fits a generalised Pareto distribution to the tail of S weights, from the largest of them.

    A caller that streams its weights has to keep only those.

    Args:
        top_log_weights: at least the `tail_length(num_samples) + 1` largest log weights (nats), in any order.
        num_samples: S, the number of all weights.

    Returns:
        The shape k of the tail, its scale and its cutoff.

    Raises:
        ValueError: there are fewer log weights than that, or more than `num_samples`.

    Example:
        The exponentials of exponential variables with mean 1/2 are Pareto variables with k = 1/2:

        >>> import jax
        >>> from vae_jax.inference import fit_tail, tail_length
        >>> log_weights = jax.random.exponential(jax.random.key(0), (100_000,)) / 2
        >>> largest = jax.lax.top_k(log_weights, tail_length(100_000) + 1)[0]
        >>> tail = fit_tail(largest, 100_000)
        >>> bool(abs(tail.k - 0.5) < 0.15)
        True

    Reference: Zhang & Stephens (2009), "A new and efficient estimation method for the generalized Pareto
    distribution", section 3; Vehtari et al. (2024), appendix G, for the prior of the shape.
    """
    length = tail_length(num_samples)
    num_given = top_log_weights.shape[0]
    if num_given > num_samples:
        raise ValueError(
            f"num_samples must be at least the number of log weights given, got {num_samples} for {num_given}: "
            "count all samples"
        )
    if num_given <= length:
        raise ValueError(
            f"top_log_weights must be the {length + 1} largest of {num_samples}, got {num_given}: keep "
            "tail_length(num_samples) + 1 of them"
        )
    if length < SHORTEST_TAIL:
        shape = _unknown_shape(top_log_weights)
        return GeneralizedParetoTail(shape, shape, top_log_weights.max())
    return _fit(lax.top_k(top_log_weights, length + 1)[0])


def effective_sample_size(log_weights: Float[Array, " S"]) -> Scalar:
    """Effective sample size of S weighted samples: (sum_s w_s)^2 / sum_s w_s^2, from 1 to S.

    NumPyro's function of this name is for the draws of Markov chains, which have no weights.

    Args:
        log_weights: logs of the weights (nats), up to a constant.

    Example:
        Two equal weights and one of zero are worth two samples:

        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.diagnostics import effective_sample_size
        >>> round(float(effective_sample_size(jnp.array([0.0, 0.0, -jnp.inf]))), 3)
        2.0

    Reference: Kish (1965).
    """
    return 1 / jnp.sum(jax.nn.softmax(log_weights) ** 2)


def tail_length(num_samples: int) -> int:
    """Number of weights in the tail of S weights: the smaller of S / 5 and 3 sqrt(S), rounded down.

    Args:
        num_samples: S, at least 1.

    Raises:
        ValueError: `num_samples` is below 1.

    Example:
        >>> from vae_jax.inference import tail_length
        >>> tail_length(100), tail_length(10_000)  # a fifth of 100, and 3 sqrt(10_000)
        (20, 300)

    Reference: Vehtari et al. (2024), section 2.3.
    """
    _check_num_samples(num_samples)
    return min(num_samples // 5, math.isqrt(9 * num_samples))


def reliability_threshold(num_samples: int) -> float:
    """Shape k below which estimates from S weights are reliable: min(1 - 1 / log10(S), 0.7).

    It is negative below ten samples. Only equal weights, whose k is minus infinity, are reliable there.

    Args:
        num_samples: S, at least 1.

    Raises:
        ValueError: `num_samples` is below 1.

    Example:
        >>> from vae_jax.inference import reliability_threshold
        >>> f"{reliability_threshold(100):.2f}, {reliability_threshold(1000):.2f}, {reliability_threshold(10_000):.2f}"
        '0.50, 0.67, 0.70'

    Reference: Vehtari et al. (2024), section 3.2.4.
    """
    _check_num_samples(num_samples)
    if num_samples == 1:
        return -math.inf
    return min(1 - 1 / math.log10(num_samples), HIGHEST_RELIABLE_SHAPE)


def _check_num_samples(num_samples: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}: raise it")


def _unknown_shape(log_weights: Float[Array, " S"]) -> Scalar:
    """Infinity, or NaN for weights that are none."""
    return jnp.where(jnp.isfinite(log_weights.max()), jnp.inf, jnp.nan).astype(log_weights.dtype)


def _self_normalised(k: Scalar, log_weights: Float[Array, " S"]) -> ParetoSmoothed:
    return ParetoSmoothed(k, jax.nn.log_softmax(log_weights), effective_sample_size(log_weights))


def _fit(top: Float[Array, " T"]) -> GeneralizedParetoTail:
    """The tail from its log weights and the next one, in descending order."""
    log_excess = _log_difference(top[:-1], top[-1])
    length = log_excess.shape[0]
    # Zhang and Stephens' unit: the first quartile of the excesses, counted from the smallest.
    unit = log_excess[length - math.floor(length / 4 + 0.5)]
    ratios = jnp.where(jnp.isfinite(unit), log_excess - unit, 0)
    rate = _posterior_mean_rate(ratios)
    raw_shape = _log_survival_slopes(rate[None], ratios)[0].mean()
    shape = (length * raw_shape + PRIOR_SIZE * PRIOR_SHAPE) / (length + PRIOR_SIZE)
    log_scale = unit + jnp.log(-raw_shape / rate)
    no_fit = jnp.where(top[0] == top[-1], -jnp.inf, jnp.inf)
    # The largest weight is NaN or infinite if any is, and minus infinity if all are.
    no_fit = jnp.where(jnp.isfinite(top[0]), no_fit, jnp.nan)
    is_fitted = jnp.isfinite(unit) & jnp.isfinite(top[0])
    no_fit = no_fit.astype(shape.dtype)
    return GeneralizedParetoTail(
        k=jnp.where(is_fitted, shape, no_fit),
        log_scale=jnp.where(is_fitted, log_scale, no_fit),
        log_cutoff=top[-1],
    )


def _log_difference(larger: Float[Array, " M"], smaller: Scalar) -> Float[Array, " M"]:
    """log(exp(larger) - exp(smaller)), minus infinity where they are equal."""
    gap = jnp.where(larger > smaller, larger - smaller, 1)
    return jnp.where(larger > smaller, larger + jnp.log(-jnp.expm1(-gap)), -jnp.inf)


def _posterior_mean_rate(log_excess: Float[Array, " M"]) -> Scalar:
    """The mean of b = -k / scale over the profile likelihood on a grid, with excesses in units of their quartile.

    This k has the opposite sign of Zhang and Stephens' own.
    """
    length = log_excess.shape[0]
    num_rates = 30 + math.isqrt(length)
    grid = jnp.arange(1, num_rates + 1, dtype=log_excess.dtype) - 0.5
    rates = jnp.exp(-log_excess[0]) + (1 - jnp.sqrt(num_rates / grid)) / 3
    rates = _away_from_zero(rates)
    shapes = _log_survival_slopes(rates, log_excess).mean(axis=1)
    log_likelihood = length * (jnp.log(-rates / shapes) - shapes - 1)
    return _away_from_zero(jax.nn.softmax(log_likelihood) @ rates)


def _away_from_zero(rates: Array) -> Array:
    """Rates moved off zero: there, at the exponential distribution, shape and rate have a ratio but are both zero."""
    smallest = jnp.finfo(rates.dtype).eps
    return jnp.where(jnp.abs(rates) < smallest, -smallest, rates)


def _log_survival_slopes(rates: Float[Array, " R"], log_excess: Float[Array, " M"]) -> Float[Array, "R M"]:
    """log(1 - b x), whose mean over x is the shape k at the rate b."""
    rates, log_excess = rates[:, None], log_excess[None, :]
    log_product = jnp.log(jnp.abs(rates)) + log_excess
    # A positive rate is below one over the largest excess.
    bounded = jnp.log1p(-jnp.exp(jnp.minimum(log_product, 0)))
    return jnp.where(rates < 0, jax.nn.softplus(log_product), bounded)


def _expected_order_statistics(tail: GeneralizedParetoTail, length: int) -> Float[Array, " M"]:
    """Quantiles of the fitted tail at (m - 1/2) / M as log weights, the largest first."""
    share_above = (jnp.arange(length, dtype=tail.k.dtype) + 0.5) / length
    k = jnp.where(tail.k == 0, jnp.finfo(tail.k.dtype).eps, tail.k)
    exponent = -k * jnp.log(share_above)
    log_excess = jnp.maximum(exponent, 0) + jnp.log(-jnp.expm1(-jnp.abs(exponent)) / jnp.abs(k))
    return jnp.logaddexp(tail.log_cutoff, tail.log_scale + log_excess)
