"""The optimal assignment of events to components, and the sums it leads to, in one pass over the events."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.typing import Scalar

BLOCK_ELEMENTS = {"cpu": 2**15, "gpu": 2**24, "tpu": 2**22}
"""Responsibilities at once. On a CPU they stay in cache, and are as many as XLA still leaves to one thread: splitting
loops so short among several takes twice as long. Elsewhere they fill the chip."""

LANES = 128
"""Blocks are multiples of so many events."""


class Assignment(NamedTuple):
    """The sums over q(Z) at its optimum that the other factors' updates need."""

    sums: Float[Array, "K F"]
    """The features' sums over events, weighted by the responsibilities."""
    log_normalizer: Scalar
    """sum_n log sum_k exp(C_k . f_n) (nats): the expected log likelihood of q(Z) plus its entropy."""


def assign(coefficients: Float[Array, "K F"], features: Float[Array, "F N"]) -> Assignment:
    """The sums under responsibilities proportional to exp(C_k . f_n), which are never all in memory.

    The last feature of an event is 1, or 0 for what only fills up an array. In `jax.shard_map` the events of all
    devices are summed.
    """
    block_size = _block_size(coefficients.shape[0], features.shape[1])
    num_blocks = features.shape[1] // block_size

    def add_block(number: Any, so_far: Assignment) -> Assignment:
        block = lax.dynamic_slice_in_dim(features, number * block_size, block_size, axis=1)
        return jax.tree.map(jnp.add, so_far, _assign_block(coefficients, block))

    rest = _assign_block(coefficients, features[:, num_blocks * block_size :])
    local = lax.fori_loop(0, num_blocks, add_block, rest)
    devices = tuple(jax.typeof(features).manual_axis_type.varying)
    return lax.psum(local, devices) if devices else local


def _block_size(num_components: int, num_events: int) -> int:
    """Events at once."""
    elements = BLOCK_ELEMENTS.get(jax.default_backend(), BLOCK_ELEMENTS["gpu"])
    return min(num_events, max(1, elements // (num_components * LANES)) * LANES)


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
