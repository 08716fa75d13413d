"""Grey pixels to binary ones, by a named rule."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from vae_jax.typing import PRNGKey
from vae_jax.vae.config.experiment import Binarization
from vae_jax.vae.data.aligned_memory import aligned_empty
from vae_jax.vae.data.image_data import chunks

WHITE = 255


def prepared(
    images: UInt8[np.ndarray, "N ..."], binarization: Binarization, seed: int, *, stream: int
) -> UInt8[np.ndarray, "N X"]:
    """Images with their pixels in one axis, binarized to 0 and 255 where the rule does so once and for all.

    Args:
        images: grey levels from 0 to 255.
        binarization: threshold sets pixels of 128 and more; fixed draws each once from its grey level; none and
            stochastic leave the levels.
        seed: of the fixed draws.
        stream: a number for each set of images, so that no two share their draws.
    """
    flat = images.reshape(len(images), math.prod(images.shape[1:]))
    match binarization:
        case "threshold":
            return _decided(flat, lambda chunk: chunk > WHITE // 2)
        case "fixed":
            generator = np.random.default_rng((seed, stream))
            # A pixel of level k is set by k of 255 equally likely draws, so that white is always and black never set.
            return _decided(flat, lambda chunk: generator.integers(0, WHITE, chunk.shape, dtype=np.uint8) < chunk)
        case _:
            return flat


def _decided(
    flat: UInt8[np.ndarray, "N X"], is_white: Callable[[np.ndarray], Bool[np.ndarray, "n X"]]
) -> UInt8[np.ndarray, "N X"]:
    """Images of 0 and 255, with no more memory than they take."""
    decided = aligned_empty(flat.shape)
    for chunk in chunks(len(flat)):
        np.multiply(is_white(flat[chunk]), np.uint8(WHITE), out=decided[chunk])
    return decided


def batch_pixels(images: UInt8[Array, "B X"], binarization: Binarization, key: PRNGKey) -> Float[Array, "B X"]:
    """Prepared images as the model sees them: from 0 to 1, binarized afresh if the rule is stochastic."""
    if binarization == "stochastic":
        return stochastically_binarized(images, key)
    return images.astype(jnp.float32) / WHITE


def stochastically_binarized(images: UInt8[Array, "B X"], key: PRNGKey) -> Float[Array, "B X"]:
    """Each pixel is 1 with the probability of its grey level over 255, to within 2^-17.

    Sixteen random bits decide, two pixels a word of the generator; black and white come out for certain.
    """
    words = jax.random.bits(key, (-(-images.size // 2),), jnp.uint32)
    bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: images.size].reshape(images.shape)
    # 2^16 / 255 times the level, to the nearest integer.
    threshold = 257 * images.astype(jnp.int32) + (images >= 128)
    return (bits.astype(jnp.int32) < threshold).astype(jnp.float32)
