"""Times of single operations on a device: launches, copies and draws, as floors of a pass."""

import math
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import jax
import jax.extend.random as jer
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

COPIED_FLOATS = 2**29

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
"""Threefry-2x32's, in bits, by the parity of the group of four rounds."""

Timings = dict[str, float]


def hot(run: Callable[[int], Any], repeats: int = 9) -> Timings:
    """Times a program, whose runs are numbered, after a first run that compiles it and a second.

    Returns:
        The first run (s), the median and the least of the repeats, and one of four that are queued at once (ms).
    """
    first = _seconds(lambda: run(0))
    _seconds(lambda: run(1))
    times = [_seconds(lambda number=number: run(number + 2)) for number in range(repeats)]
    queued = _seconds(lambda: [run(100 + number) for number in range(4)]) / 4
    return {
        "first_s": round(first, 2),
        "median_ms": round(1e3 * float(np.median(times)), 3),
        "min_ms": round(1e3 * min(times), 3),
        "queued_ms": round(1e3 * queued, 3),
    }


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def copy(scale: float) -> Timings:
    """Reads and writes an array once."""
    x = jnp.ones((max(1, int(COPIED_FLOATS * scale)),), jnp.float32)
    add = jax.jit(lambda x, i: x + i)
    times = hot(lambda i: add(x, jnp.float32(i)))
    return times | {"TB_per_s": round(8 * len(x) / times["min_ms"] / 1e9, 2)}


def launch() -> Timings:
    """Adds two numbers."""
    add = jax.jit(lambda i: i + 1)
    return hot(lambda i: add(jnp.int32(i)), 30)


def _unrolled_bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    """Threefry-2x32 of a counter without a loop, its two words combined."""
    del width
    x1 = lax.iota(jnp.uint32, math.prod(shape))
    x0 = jnp.zeros_like(x1)
    schedule = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << jnp.uint32(rotation)) | (x1 >> jnp.uint32(32 - rotation)))
        x0, x1 = x0 + schedule[(group + 1) % 3], x1 + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return (x0 ^ x1).reshape(shape)


_THREEFRY = jer.threefry_prng_impl

UNROLLED = jer.define_prng_impl(
    key_shape=_THREEFRY.key_shape,
    seed=_THREEFRY.seed,
    split=_THREEFRY.split,
    random_bits=_unrolled_bits,
    fold_in=_THREEFRY.fold_in,
    name="unrolled_threefry",
    tag="unr",
)
"""JAX's default generator, but for the loop over its rounds."""

KEYS: Mapping[str, Callable[[int], Array]] = {
    "threefry": jax.random.key,
    "unrolled": lambda seed: jax.random.wrap_key_data(jax.random.key_data(jax.random.key(seed)), impl=UNROLLED),
    "rbg": lambda seed: jax.random.key(seed, impl="rbg"),
    "unsafe_rbg": lambda seed: jax.random.key(seed, impl="unsafe_rbg"),
}


def draw_floors(num_normals: int) -> dict[str, tuple[float, float, float]]:
    """Draws and sums normals by every generator, from one key and as 1,000 replicates with a key each.

    Returns:
        The median, the time of one of four queued (ms) and the first run (s), by generator and number of keys.
    """

    def from_one(key: Array) -> Array:
        # A map of one, so that nothing about the keys is known while compiling.
        return lax.map(lambda k: jax.random.normal(k, (num_normals,)).sum(), jax.random.split(key, 1)).sum()

    def from_many(key: Array) -> Array:
        keys = jax.random.split(key, 1000)
        return jax.vmap(lambda k: jax.random.normal(k, (num_normals // 1000,)).sum())(keys).sum()

    found = {}
    for name, key_of in KEYS.items():
        for number, draw in ((1, from_one), (1000, from_many)):
            program = jax.jit(draw)
            times = hot(lambda seed, program=program, key_of=key_of: program(key_of(seed)))
            found[f"{name}/{number}"] = (times["median_ms"], times["queued_ms"], times["first_s"])
    return found


def random_bits(num_words: int) -> Timings:
    """Draws and sums words of 32 bits."""
    draw = jax.jit(lambda key: jax.random.bits(key, (num_words,)).sum())
    return hot(lambda seed: draw(jax.random.key(seed)))


def inverse_error_functions(number: int) -> Timings:
    """Turns uniforms into normals, without drawing them."""
    invert = jax.jit(lambda start: lax.erf_inv(lax.iota(jnp.float32, number) * 2e-9 + start).sum())
    return hot(lambda i: invert(jnp.float32(1e-6 * (i + 1))))


def torch_normals(number: int) -> Timings:
    """Draws and sums normals in PyTorch, on the card if it can use one.

    Raises:
        ImportError: PyTorch is missing.
    """
    torch: Any = import_module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def run(_: int) -> int:
        torch.randn(number, device=device).sum()
        if device == "cuda":
            torch.cuda.synchronize()
        return 0

    return hot(run)
