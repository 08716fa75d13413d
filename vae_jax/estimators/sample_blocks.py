"""An estimator over more samples than memory holds at once."""

from functools import partial

import jax

from vae_jax.typing import Distributions, Estimator, Objective, PRNGKey, Scalar


def in_blocks(estimator: Estimator, block_size: int) -> Estimator:
    """The mean of an estimator over blocks of samples, in the memory of one block, forward and backward.

    Under `gradient_statistics` on a CPU a `chunk_size` of about 2^18 / block_size keeps the loop short. Unbiased where
    the estimator is. One that couples its samples, such as leave-one-out, couples those of a block.

    Args:
        estimator: any estimator.
        block_size: samples of a block. The number of samples must be a multiple of it, or at most one block.

    Raises:
        ValueError: `block_size` is not positive, or the number of samples is not a multiple of it.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")

    return partial(_blocked, estimator=estimator, block_size=block_size)


def _blocked(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    estimator: Estimator,
    block_size: int,
) -> Scalar:
    if num_samples <= block_size:
        return estimator(objective, q, key, num_samples)
    if num_samples % block_size:
        raise ValueError(f"num_samples must be a multiple of block_size {block_size}, got {num_samples}")
    block_keys = jax.random.split(key, num_samples // block_size)

    @jax.checkpoint
    def block(block_key: PRNGKey) -> Scalar:
        return estimator(objective, q, block_key, block_size)

    return jax.lax.map(block, block_keys).mean()
