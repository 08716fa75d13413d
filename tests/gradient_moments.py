"""Moments of a random loss and of its gradient, summed by NumPy over the draws that `gradient_statistics` has.

`gradient_statistics` compiles the sums into one program with the loss, for about half a second a loss. What is measured
by the hundred is measured here instead, in double precision and by another hand.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MOST_AT_ONCE = 20_000
"""Replicates of one call of the compiled loss."""


class SampleMoments(NamedTuple):
    """Pytrees with the structure of the parameters, or scalars for the value."""

    mean: Any
    mean_se: Any
    variance: Any
    std: Any
    std_se: Any


class GradientMoments(NamedTuple):
    """Moments over the same replicates."""

    value: SampleMoments
    gradient: SampleMoments


def gradient_moments(
    loss: Callable[..., Any], params: Any, key: jax.Array, num_replicates: int, *, at_once: int = MOST_AT_ONCE
) -> GradientMoments:
    """The moments of `loss(params, key)` and of its gradient, over keys folded in as `gradient_statistics` does."""
    num_parts = math.ceil(num_replicates / at_once)
    # Equal parts, the last of them filled up, so that the loss is compiled once.
    size = math.ceil(num_replicates / num_parts)
    keys = _keys(key, num_parts * size)
    draw = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    drawn = [jax.device_get(draw(params, keys[part * size : (part + 1) * size])) for part in range(num_parts)]
    value, gradient = jax.tree.map(lambda *parts: np.concatenate(parts)[:num_replicates].astype(float), *drawn)
    return GradientMoments(_moments(value), _moments(gradient))


@jax.jit
def _folded(key: jax.Array, numbers: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def _keys(key: jax.Array, num_replicates: int) -> jax.Array:
    return _folded(key, jnp.arange(num_replicates, dtype=np.uint32))


def _moments(replicates: Any) -> SampleMoments:
    leaves, structure = jax.tree.flatten(replicates)
    fields = zip(*map(_moments_of_array, leaves), strict=True)
    return SampleMoments(*(jax.tree.unflatten(structure, field) for field in fields))


def _moments_of_array(drawn: np.ndarray) -> SampleMoments:
    number = len(drawn)
    variance = drawn.var(0, ddof=1)
    fourth = ((drawn - drawn.mean(0)) ** 4).mean(0)
    std = np.sqrt(variance)
    variance_se = np.sqrt(np.maximum(fourth - variance**2 * (number - 3) / (number - 1), 0) / number)
    std_se = np.divide(variance_se, 2 * std, out=np.zeros_like(std), where=std > 0)
    return SampleMoments(drawn.mean(0), std / np.sqrt(number), variance, std, std_se)
