"""The optimal assignment of events to components, and the sums it leads to, in one pass over the events."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.typing import Scalar

BLOCK_SIZE = 2048
"""Events at once: their responsibilities stay in cache. All of them at once would take many times as long."""


class Assignment(NamedTuple):
    """What the other factors need to know of q(Z) at its optimum."""

    sums: Float[Array, "K F"]
    """The features' sums over events, weighted by the responsibilities."""
    log_normalizer: Scalar
    """sum_n log sum_k exp(C_k . f_n) (nats): the expected log likelihood of q(Z) plus its entropy."""


def assign(coefficients: Float[Array, "K F"], features: Float[Array, "F N"]) -> Assignment:
    """The sums under responsibilities proportional to exp(C_k . f_n), which are never all in memory.

    The last feature of an event is 1, or 0 for what only fills up an array. In `jax.shard_map` the events of all
    devices are summed.
    """
    num_events = features.shape[1]
    block_size = min(BLOCK_SIZE, num_events)
    num_blocks = num_events // block_size

    def add_block(number: Any, so_far: Assignment) -> Assignment:
        block = lax.dynamic_slice_in_dim(features, number * block_size, block_size, axis=1)
        return jax.tree.map(jnp.add, so_far, _assign_block(coefficients, block))

    rest = _assign_block(coefficients, features[:, num_blocks * block_size :])
    local = lax.fori_loop(0, num_blocks, add_block, rest)
    devices = tuple(jax.typeof(features).manual_axis_type.varying)
    return lax.psum(local, devices) if devices else local


def _assign_block(coefficients: Float[Array, "K F"], features: Float[Array, "F B"]) -> Assignment:
    logits = product(coefficients, features)
    top = logits.max(0)
    shares = jnp.exp(logits - top[None])
    total = shares.sum(0)
    # The few features are divided, and not the shares of every component.
    sums = product(shares, (features / total[None]).T)
    return Assignment(sums, (features[-1] * (top + jnp.log(total))).sum())


def product(left: Array, right: Array) -> Array:
    """The matrix product, in the full precision that accelerators do not use unless told to."""
    return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)
