"""Baselines: subtracted from the objective by the score-function estimator, for less variance and the same mean.

A baseline takes the objective's values at the S samples, [S], and returns the number to subtract from each,
[S] or a scalar. It must not let a value into its own baseline: that biases the gradient.

A prediction from the input is a baseline that ignores the values, `lambda values: prediction`. It is given no gradient;
`baseline_loss` is what it is trained by.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from vae_jax.typing import Baseline, Scalar


def no_baseline(values: Float[Array, " S"]) -> float:
    """Nothing is subtracted."""
    return 0.0


def leave_one_out(values: Float[Array, " S"]) -> Float[Array, " S"]:
    """Each sample's baseline is the mean of the other samples' values.

    The samples must be independent of each other: under `antithetic_pairs` use `leave_one_pair_out`.

    Raises:
        ValueError: there is only one sample.

    Reference: Kool, van Hoof & Welling (2019), eq. 8; Mnih & Rezende (2016), section 2.4.
    """
    num_samples = values.shape[0]
    if num_samples < 2:
        raise ValueError("leave_one_out needs at least 2 samples, got 1: raise num_samples, or use no_baseline")
    return (values.sum() - values) / (num_samples - 1)


def leave_one_pair_out(values: Float[Array, " S"]) -> Float[Array, " S"]:
    """Each sample's baseline is the mean of the values outside its antithetic pair, samples i and i + S/2.

    The other sample of the pair is a function of this one, so its value in the baseline would bias the gradient.

    Raises:
        ValueError: there are not two pairs at least.
    """
    num_samples = values.shape[0]
    if num_samples < 4 or num_samples % 2:
        raise ValueError(
            f"leave_one_pair_out needs an even number of samples, at least 4, got {num_samples}: raise num_samples, or "
            "use no_baseline"
        )
    pair_sums = values + jnp.roll(values, num_samples // 2)
    return (values.sum() - pair_sums) / (num_samples - 2)


class MovingAverage(NamedTuple):
    """An exponentially weighted average of past values. It starts at zero: read it through `moving_average`."""

    weighted_sum: Scalar
    """The weighted sum of past values. It is not debiased, so that reading can debias it once."""
    weight: Scalar
    """The sum of their weights: 1 - decay^t after t updates."""


def init_moving_average() -> MovingAverage:
    """The state before any value."""
    return MovingAverage(jnp.zeros(()), jnp.zeros(()))


def moving_average(state: MovingAverage) -> Baseline:
    """The average of the values before this batch, zero where there are none, as a baseline.

    The batch is left out: with it the gradient would be too small by the factor 1 - (1 - decay) / S.

    Args:
        state: from `init_moving_average` or `update_moving_average`, of earlier draws.

    Reference: Williams (1992); Mnih & Gregor (2014); Kingma & Ba (2015), section 3, for the correction of the start at
        zero.
    """
    average = state.weighted_sum / jnp.where(state.weight > 0, state.weight, 1)
    return lambda values: average


def update_moving_average(state: MovingAverage, values: ArrayLike, *, decay: float = 0.9) -> MovingAverage:
    """The state after a batch, for the next one. No gradient flows into it.

    Args:
        state: before the batch.
        values: the objective's at the samples, or their mean: an estimator's value.
        decay: how much of the past is kept, from 0 to less than 1.

    Raises:
        ValueError: `decay` is out of range.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and less than 1, got {decay}")
    mean = lax.stop_gradient(jnp.mean(jnp.asarray(values)))
    return MovingAverage(
        decay * lax.stop_gradient(state.weighted_sum) + (1 - decay) * mean,
        decay * lax.stop_gradient(state.weight) + (1 - decay),
    )


def baseline_loss(prediction: ArrayLike, values: ArrayLike) -> Scalar:
    """The mean squared error of a learned baseline, in the prediction's parameters alone.

    Args:
        prediction: what the baseline subtracts, a scalar or of the values' shape.
        values: the objective's at the samples, or their mean: an estimator's value.

    Raises:
        ValueError: the prediction is neither a scalar nor of the values' shape.

    Reference: Mnih & Gregor (2014).
    """
    prediction, values = jnp.asarray(prediction), lax.stop_gradient(jnp.asarray(values))
    if prediction.shape not in ((), values.shape):
        raise ValueError(f"prediction must be a scalar or of shape {values.shape}, got shape {prediction.shape}")
    return jnp.mean((prediction - values) ** 2)
