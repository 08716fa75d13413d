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
    """Zero baseline, which subtracts nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> vj.no_baseline(jnp.array([1.0, 2.0, 6.0]))
        0.0
    """
    return 0.0


def leave_one_out(values: Float[Array, " S"]) -> Float[Array, " S"]:
    """Baseline of each sample: the mean of the other samples' values.

    The samples must be independent of each other: under `antithetic_pairs` use `leave_one_pair_out`.

    Args:
        values: the objective's values at the samples, [S].

    Returns:
        The baseline of each sample, [S].

    Raises:
        ValueError: there is only one sample.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> vj.leave_one_out(jnp.array([1.0, 2.0, 6.0])).tolist()
        [4.0, 3.5, 1.5]

    Reference: Kool, van Hoof & Welling (2019), eq. 8; Mnih & Rezende (2016), section 2.4.
    """
    num_samples = values.shape[0]
    if num_samples < 2:
        raise ValueError("leave_one_out needs at least 2 samples, got 1: raise num_samples, or use no_baseline")
    return (values.sum() - values) / (num_samples - 1)


def leave_one_pair_out(values: Float[Array, " S"]) -> Float[Array, " S"]:
    """Baseline of each sample: the mean of the values outside its antithetic pair, samples i and i + S/2.

    The other sample of the pair is a function of this one, so its value in the baseline would bias the gradient.

    Args:
        values: the objective's values at the samples, [S].

    Returns:
        The baseline of each sample, [S].

    Raises:
        ValueError: there are fewer than two pairs, or an odd number of samples.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> vj.leave_one_pair_out(jnp.array([1.0, 2.0, 3.0, 4.0])).tolist()  # the pairs are 1 and 3, 2 and 4
        [3.0, 2.0, 3.0, 2.0]
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
    """An exponentially weighted average of past values. It starts at zero: read it through `moving_average`.

    Example:
        >>> import vae_jax as vj
        >>> state = vj.estimators.init_moving_average()
        >>> state = vj.estimators.update_moving_average(state, 2.0, decay=0.9)
        >>> print(f"{state.weighted_sum:.1f}, {state.weight:.1f}, {vj.moving_average(state)(None):.1f}")
        0.2, 0.1, 2.0
    """

    weighted_sum: Scalar
    """The weighted sum of past values. It is not debiased, so that reading can debias it once."""
    weight: Scalar
    """The sum of their weights: 1 - decay^t after t updates."""


def init_moving_average() -> MovingAverage:
    """Returns the state of a moving average before any value.

    Example:
        >>> import vae_jax as vj
        >>> state = vj.estimators.init_moving_average()
        >>> float(vj.moving_average(state)(None))  # a baseline of zero
        0.0
    """
    return MovingAverage(jnp.zeros(()), jnp.zeros(()))


def moving_average(state: MovingAverage) -> Baseline:
    """Baseline: the moving average of the values before this batch, zero where there are none.

    The batch is left out: with it the gradient would be too small by the factor 1 - (1 - decay) / S.

    Args:
        state: from `init_moving_average` or `update_moving_average`, over earlier draws.

    Returns:
        A function of the values of a batch, which it ignores, that returns the average, a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> state = vj.estimators.init_moving_average()
        >>> for values in (jnp.array([1.0, 3.0]), jnp.array([4.0, 4.0])):  # two batches, of means 2 and 4
        ...     state = vj.estimators.update_moving_average(state, values, decay=0.5)
        >>> print(f"{vj.moving_average(state)(values):.2f}")  # (0.5 * 2 + 4) / 1.5
        3.33

    Reference: Williams (1992); Mnih & Gregor (2014); Kingma & Ba (2015), section 3, for the correction of the start at
        zero.
    """
    average = state.weighted_sum / jnp.where(state.weight > 0, state.weight, 1)
    return lambda values: average


def update_moving_average(state: MovingAverage, values: ArrayLike, *, decay: float = 0.9) -> MovingAverage:
    """Returns the state of a moving average after a batch, with no gradient attached.

    Args:
        state: the state before the batch.
        values: the objective's values at the samples, or their mean, which is an estimator's value.
        decay: the share of the past that is kept, from 0 to less than 1.

    Returns:
        The state for the next batch.

    Raises:
        ValueError: `decay` is out of range.

    Example:
        >>> import vae_jax as vj
        >>> state = vj.estimators.init_moving_average()
        >>> for value in (2.0, 4.0):
        ...     state = vj.estimators.update_moving_average(state, value)
        >>> print(f"{vj.moving_average(state)(None):.2f}")  # (0.9 * 2 + 4) / 1.9
        3.05
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and less than 1, got {decay}")
    mean = lax.stop_gradient(jnp.mean(jnp.asarray(values)))
    return MovingAverage(
        decay * lax.stop_gradient(state.weighted_sum) + (1 - decay) * mean,
        decay * lax.stop_gradient(state.weight) + (1 - decay),
    )


def baseline_loss(prediction: ArrayLike, values: ArrayLike) -> Scalar:
    """Mean squared error of a learned baseline, to train the prediction's parameters alone.

    Args:
        prediction: the baseline, a scalar or an array of the values' shape.
        values: the objective's values at the samples, or their mean, which is an estimator's value. They get no
            gradient.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: the prediction is neither a scalar nor of the values' shape.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> values = jnp.array([0.0, 4.0])
        >>> loss, gradient = jax.value_and_grad(vj.baseline_loss)(1.0, values)
        >>> print(f"{loss:.1f}, gradient {gradient:.1f}")  # the best prediction is 2
        5.0, gradient -2.0

    Reference: Mnih & Gregor (2014).
    """
    prediction, values = jnp.asarray(prediction), lax.stop_gradient(jnp.asarray(values))
    if prediction.shape not in ((), values.shape):
        raise ValueError(f"prediction must be a scalar or of shape {values.shape}, got shape {prediction.shape}")
    return jnp.mean((prediction - values) ** 2)
