"""The draw floor, what is measured against it, and passes over more samples than a cache holds."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.sharding import PartitionSpec

from speed.ours import blocked_pass
from speed.work import Work, fastest, interleaved

NUM_LATENTS = 2

CHUNK_ELEMENTS = {"cpu": (20_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000)}
"""Normals that the floor draws at once on a device: candidates, of which the fastest counts."""

OTHER_CHUNK_ELEMENTS = (2**20, 2**22, 2**24, 2**26)

OPERATIONS_PER_NORMAL = 176
"""Of 32 bits each, counted by hand for one normal and its sum.

Threefry-2x32, one call a draw: 20 rounds of an addition, a rotation (two shifts and an or) and an exclusive or make
100; adding the key at the start 2, after every fourth round 5 times 3; one exclusive or of the two words. 118 in all.
The uniform: a shift, an or, a subtraction, a product, a sum and a maximum, 6. The inverse error function: a logarithm
of 1 - x^2 taken as 16, nine choices of a coefficient, eight multiply-adds (16), a root and three more (4), two
products, a comparison and a choice of branch (2), and sqrt(2) (1): 50. The sum and the counter: 2. A device that does a
rotation in one instruction needs fewer, one whose integers are slower than its floats more time: the fraction is of the
time that these operations would take at the rate given.
"""

NUM_BLOCKS = 100
"""That the samples of a large pass are cut into."""


def _draw_floors(work: Work) -> dict[tuple[int, int], Callable[[], Array]]:
    """Programs that draw and sum the work's normals, by (chunk elements, devices)."""
    num_normals = NUM_LATENTS * work.num_samples * work.num_replicates
    candidates = CHUNK_ELEMENTS.get(jax.default_backend(), OTHER_CHUNK_ELEMENTS)
    return {
        (elements, num_devices): _draw_floor(work, elements, num_devices)
        for num_devices in sorted({1, work.mesh.size})
        for elements in candidates
        if elements * num_devices <= num_normals
    }


def _draw_floor(work: Work, elements: int, num_devices: int) -> Callable[[], Array]:
    num_normals = NUM_LATENTS * work.num_samples * work.num_replicates
    num_chunks = math.ceil(num_normals / elements / num_devices) * num_devices
    even_elements = math.ceil(num_normals / num_chunks)

    def on_device(keys: Any) -> Array:
        return lax.map(lambda key: jax.random.normal(key, (even_elements,)).sum(), keys)

    shards = PartitionSpec(work.mesh.axis_names)
    over_devices = jax.shard_map(on_device, mesh=work.mesh, in_specs=shards, out_specs=shards, check_vma=False)
    program = on_device if num_devices == 1 else over_devices
    return partial(jax.jit(lambda key: program(jax.random.split(key, num_chunks)).sum()), work.key)


def chosen_floor(work: Work, search: Work) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """The floor of `work` by what is fastest on `search`, and what it is."""
    best, seconds = fastest(_draw_floors(search))
    description = {
        "num_normals": NUM_LATENTS * work.num_samples * work.num_replicates,
        "chunk_elements": best[0],
        "num_devices": best[1],
        "search_replicates": search.num_replicates,
        "candidates": [
            {"chunk_elements": elements, "num_devices": num_devices, "min_seconds": each}
            for (elements, num_devices), each in seconds.items()
        ],
    }
    return description, {"floor": _draw_floor(work, *best)}


def spread(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median_seconds": statistics.median(seconds),
        "min_seconds": min(seconds),
        "max_seconds": max(seconds),
    }


def ratio(numerator: Mapping[str, float], denominator: Mapping[str, float]) -> float:
    return numerator["median_seconds"] / denominator["median_seconds"]


def over_floor(
    name: str, seconds: Mapping[str, float], floor: Mapping[str, float], work: Work, rate: float | None
) -> dict[str, Any]:
    operations = OPERATIONS_PER_NORMAL * NUM_LATENTS * work.num_samples * work.num_replicates
    return {
        "estimator": name,
        **seconds,
        "over_floor": ratio(seconds, floor),
        "roofline_fraction": None if rate is None else operations / rate / seconds["median_seconds"],
    }


def block_size_of(num_samples: int) -> int:
    return num_samples // NUM_BLOCKS


def large_pass(work: Work, estimators: Sequence[str], rounds: int, rate: float | None) -> dict[str, Any]:
    """Passes whose samples are too many for a cache: as they are, and in blocks."""
    print(f"{work.num_samples:,} samples, {rounds} rounds ...", flush=True)
    floor, contenders = chosen_floor(work, replace(work, num_replicates=max(2, work.num_replicates // 20)))
    cells = {
        f"{name}/{block}": (name, block) for name in estimators for block in (None, block_size_of(work.num_samples))
    }
    contenders |= {key: blocked_pass(work, *cell) for key, cell in cells.items()}
    times = {name: spread(each) for name, each in interleaved(contenders, rounds).items()}
    floor |= times["floor"]
    return {
        "num_samples": work.num_samples,
        "num_replicates": work.num_replicates,
        "rounds": rounds,
        "floor": floor,
        "passes": [
            over_floor(name, times[key], floor, work, rate) | {"block_size": block}
            for key, (name, block) in cells.items()
        ],
    }
