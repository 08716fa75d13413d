"""log p(x) of images under a trained model, by importance sampling from q(z|x)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from vae_jax.bounds import log_weights
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.data.binarization import WHITE
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import VAE, Params


class LogMarginals(NamedTuple):
    """Importance-sampling estimates of log p(x) of N images (nats)."""

    log_marginal: Float[Array, " N"]
    """log 1/k sum_i w_i, which on average lies below log p(x)."""
    effective_sample_size: Float[Array, " N"]
    """(sum_i w_i)^2 / sum_i w_i^2, from 1 to k."""
    standard_error: Float[Array, " N"]
    """Monte Carlo error of each estimate by the delta method, sqrt(1 / ESS - 1 / k)."""


SAMPLES_AT_ONCE = 1000
"""Importance samples of an image at once: logits of so many rows stay in cache."""


def log_marginals(
    architecture: Architecture,
    params: Params,
    images: UInt8[Array | np.ndarray, "N X"],
    key: PRNGKey,
    *,
    num_importance_samples: int = 5000,
    num_images: int | None = None,
) -> LogMarginals:
    """log p(x) of each image by importance sampling from q(z|x), in memory that does not grow with the samples.

    One compiled program serves every number of samples that is not below `SAMPLES_AT_ONCE`, and every `num_images`.

    Args:
        architecture: of the model.
        params: of the model.
        images: as the model sees them, times 255.
        key: consumed.
        num_importance_samples: k.
        num_images: only the first so many are computed, by default all. Of the others the result holds zeros.

    Reference: Burda, Grosse & Salakhutdinov (2016), section 5.
    """
    num_images = len(images) if num_images is None else num_images
    size = min(SAMPLES_AT_ONCE, num_importance_samples)
    return _log_marginals(architecture, params, images, key, num_images, num_importance_samples, size=size)


@partial(jax.jit, static_argnames=("architecture", "size"))
def _log_marginals(
    architecture: Architecture,
    params: Params,
    images: UInt8[Array, "N X"],
    key: PRNGKey,
    num_images: Int[Array, ""],
    num_samples: Int[Array, ""],
    *,
    size: int,
) -> LogMarginals:
    model = architecture.bind(params)

    def add(number: Array, found: LogMarginals) -> LogMarginals:
        x = images[number].astype(jnp.float32) / WHITE
        of_image = _log_marginal(model, x, jax.random.fold_in(key, number), num_samples, size)
        return jax.tree.map(lambda leaf, value: leaf.at[number].set(value), found, of_image)

    start = LogMarginals(*(jnp.zeros(len(images)) for _ in LogMarginals._fields))
    return lax.fori_loop(0, num_images, add, start)


class Streamed(NamedTuple):
    """Sums of importance weights and of their squares, in units of the largest so far."""

    log_largest: Scalar
    total: Scalar
    total_of_squares: Scalar


def _log_marginal(
    model: VAE, x: Float[Array, " X"], key: PRNGKey, num_samples: Int[Array, ""], size: int
) -> LogMarginals:
    q = model.posterior(model.encode(x))

    def log_joint(z: Any) -> Scalar:
        return model.log_likelihood(x, z) + model.log_prior(z)

    def add(number: Array, sums: Streamed) -> Streamed:
        log_w = log_weights(log_joint, q, jax.random.fold_in(key, number), size)
        # The last chunk may hold more samples than are asked for.
        return _added(sums, jnp.where(number * size + jnp.arange(size) < num_samples, log_w, -jnp.inf))

    start = Streamed(jnp.asarray(-jnp.inf), jnp.asarray(0.0), jnp.asarray(0.0))
    sums = lax.fori_loop(0, -(-num_samples // size), add, start)
    effective = sums.total**2 / sums.total_of_squares
    error = jnp.sqrt(jnp.maximum(1 / effective - 1 / num_samples, 0))
    return LogMarginals(sums.log_largest + jnp.log(sums.total) - jnp.log(num_samples), effective, error)


def _added(sums: Streamed, log_w: Float[Array, " c"]) -> Streamed:
    log_largest = jnp.maximum(sums.log_largest, log_w.max())
    before, weights = jnp.exp(sums.log_largest - log_largest), jnp.exp(log_w - log_largest)
    return Streamed(
        log_largest,
        sums.total * before + weights.sum(),
        sums.total_of_squares * before**2 + (weights**2).sum(),
    )
