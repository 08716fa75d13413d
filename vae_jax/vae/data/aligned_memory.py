"""Arrays that a CPU device takes as its own memory, without a copy, and how they are filled from a file."""

import io
import math

import numpy as np
from jaxtyping import UInt8

ALIGNMENT = 64
"""Bytes that an array's address is a multiple of. NumPy aligns to 16, and `jax.device_put` has to copy that."""


def aligned_empty(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """An array of uint8 with no values yet."""
    size = math.prod(shape)
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].reshape(shape)


def read_into(array: UInt8[np.ndarray, "..."], stream: io.BufferedIOBase) -> None:
    """Fills an array with the next bytes of a file.

    Raises:
        EOFError: there are too few of them.
    """
    flat, filled = array.reshape(-1), 0
    while filled < flat.size:
        # Pieces, because streams that unpack make a copy of what they read into.
        num_read = stream.readinto(flat[filled : filled + 2**20].data)
        if not num_read:
            raise EOFError(f"it ends before the {array.shape} bytes that it announces")
        filled += num_read
