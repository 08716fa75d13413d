"""Scrambled Sobol sequences.

Reference: Matousek (1998) for the scrambling; Joe & Kuo (2008) for the direction numbers.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from vae_jax.typing import PRNGKey

_PLACES = np.left_shift(np.uint32(1), np.arange(31, -1, -1, dtype=np.uint32))
"""The bits of a word, the first of a binary fraction first."""


def scrambled_sobol(key: PRNGKey, num_samples: int, first_dimension: int, num_dimensions: int) -> UInt32[Array, "S D"]:
    """The first points of a Sobol sequence as binary fractions, by random lower triangular matrices and a shift."""
    matrix_key, shift_key = jax.random.split(key)
    shift = jax.random.bits(shift_key, (1, num_dimensions), jnp.uint32)
    # Column c holds a one at place c, and random bits at the later places.
    columns = (jax.random.bits(matrix_key, (num_dimensions, 32), jnp.uint32) & (_PLACES - 1)[None]) | _PLACES[None]
    directions = _direction_numbers(first_dimension, num_dimensions, (num_samples - 1).bit_length())
    scrambled = _exclusive_or(jnp.where(directions[:, :, None] & _PLACES != 0, columns[None], np.uint32(0)), axis=2)
    indices = np.arange(num_samples, dtype=np.uint32)
    points = jnp.broadcast_to(shift, (num_samples, num_dimensions))
    for place, direction in enumerate(scrambled):
        chosen = (indices >> np.uint32(place)) & np.uint32(1)
        points = points ^ (chosen[:, None] * direction[None])
    return points


def _exclusive_or(words: UInt32[Array, "..."], axis: int) -> UInt32[Array, "..."]:
    return lax.reduce(words, np.uint32(0), lax.bitwise_xor, (axis,))


@lru_cache(maxsize=32)
def _direction_numbers(first_dimension: int, num_dimensions: int, num_bits: int) -> np.ndarray:
    """What bit k of a point's index contributes to each dimension, [num_bits, num_dimensions]."""
    # Imported on use: it takes longer than the rest of the library.
    from scipy.stats import qmc

    sequence = qmc.Sobol(first_dimension + num_dimensions, scramble=False, bits=32)
    fractions = sequence.random_base2(num_bits)[:, first_dimension:]
    points = (fractions * 2.0**32).astype(np.uint32)
    # In Gray code order point 2^k differs from the one before it by direction k alone.
    starts = 2 ** np.arange(num_bits)
    return points[starts] ^ points[starts - 1]
