"""An estimator over more samples than memory holds at once."""

from functools import partial

import jax

from vae_jax.typing import Distributions, Estimator, Objective, PRNGKey, Scalar


def in_blocks(estimator: Estimator, block_size: int) -> Estimator:
    """Averages an estimator over blocks of samples, in the memory of one block, forward and backward.

    Under `gradient_statistics` on a CPU a `chunk_size` of about 2^18 / block_size keeps the loop short. Unbiased where
    the estimator is. One that couples its samples, such as leave-one-out, couples those of a block.

    Args:
        estimator: any estimator.
        block_size: the number of samples of a block. The number of samples must be a multiple of it, or at most one
            block.

    Returns:
        The estimator over blocks, which takes the same arguments.

    Raises:
        ValueError: `block_size` is not positive, or the number of samples is not a multiple of it.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> estimator = vj.estimators.in_blocks(vj.pathwise, 1000)  # 100 blocks of 1000 samples
        >>> def estimate(loc):  # E[z^2] = loc^2 + 1
        ...     return estimator(lambda z, q: z**2, dist.Normal(loc, 1.0), jax.random.key(0), 100_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.3)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.7, gradient 2.6
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
