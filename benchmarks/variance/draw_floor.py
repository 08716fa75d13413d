"""The draw floor: the fastest way found to draw and sum as many numbers as a pass does."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from benchmarks.interleaved_timing import fastest, summary
from benchmarks.variance.variance_work import GradientWork

NUM_LATENTS = 2

CHUNK_ELEMENTS = {"cpu": (20_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000)}
"""Normals that the floor draws at once on a device: candidates, of which the fastest counts."""

OTHER_CHUNK_ELEMENTS = (2**20, 2**22, 2**24, 2**26)

OPERATIONS_PER_NORMAL = 176
"""Operations of 32 bits for one normal and its sum, counted by hand.

Threefry-2x32, one call a draw: 20 rounds of an addition, a rotation (two shifts and an or) and an exclusive or make
100; adding the key at the start 2, after every fourth round 5 times 3; one exclusive or of the two words. 118 in all.
The uniform: a shift, an or, a subtraction, a product, a sum and a maximum, 6. The inverse error function: a logarithm
of 1 - x^2 taken as 16, nine choices of a coefficient, eight multiply-adds (16), a root and three more (4), two
products, a comparison and a choice of branch (2), and sqrt(2) (1): 50. The sum and the counter: 2. A device that does a
rotation in one instruction needs fewer, one whose integers are slower than its floats more time: the fraction is the
share of the measured time that these operations would take at the rate given.
"""


def draws_in_chunks(
    draw_chunk: Callable[[Array, int], Array], num_draws: int, elements: int, mesh: Mesh | None
) -> Callable[[Array], Array]:
    """A program of a key that draws and sums at least `num_draws` numbers.

    Args:
        draw_chunk: a key and a number of draws to their sum.
        num_draws: of each kind that a chunk draws.
        elements: most draws at once on a device; the chunks are made equal.
        mesh: the devices that share the chunks; None for a single one.
    """
    num_devices = 1 if mesh is None else mesh.size
    num_chunks = math.ceil(num_draws / elements / num_devices) * num_devices
    even_elements = math.ceil(num_draws / num_chunks)

    def on_device(keys: Any) -> Array:
        return lax.map(lambda key: draw_chunk(key, even_elements), keys)

    program = on_device
    if mesh is not None:
        shards = PartitionSpec(mesh.axis_names)
        program = jax.shard_map(on_device, mesh=mesh, in_specs=shards, out_specs=shards, check_vma=False)
    return jax.jit(lambda key: program(jax.random.split(key, num_chunks)).sum())


def _normals(key: Array, number: int) -> Array:
    return jax.random.normal(key, (number,)).sum()


def _draw_floor(work: GradientWork, elements: int, num_devices: int) -> Callable[[], Array]:
    mesh = None if num_devices == 1 else work.mesh
    return partial(draws_in_chunks(_normals, _num_normals(work), elements, mesh), work.key)


def _num_normals(work: GradientWork) -> int:
    return NUM_LATENTS * work.num_samples * work.num_replicates


def _draw_floors(work: GradientWork) -> dict[tuple[int, int], Callable[[], Array]]:
    """Programs that draw and sum the work's normals, by (chunk elements, devices)."""
    candidates = CHUNK_ELEMENTS.get(jax.default_backend(), OTHER_CHUNK_ELEMENTS)
    return {
        (elements, num_devices): _draw_floor(work, elements, num_devices)
        for num_devices in sorted({1, work.mesh.size})
        for elements in candidates
        if elements * num_devices <= _num_normals(work)
    }


def chosen_floor(work: GradientWork, search: GradientWork) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Returns the description of the floor of `work` and the floor, chosen as the fastest on `search`."""
    best, seconds = fastest(_draw_floors(search))
    description = {
        "num_normals": _num_normals(work),
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
    """The median and the extremes of times, named as seconds."""
    return {f"{name}_seconds": value for name, value in summary(seconds).items()}


def ratio_of_medians(numerator: Mapping[str, float], denominator: Mapping[str, float]) -> float:
    """The ratio of the medians of two spreads."""
    return numerator["median_seconds"] / denominator["median_seconds"]


def over_floor(
    name: str, seconds: Mapping[str, float], floor: Mapping[str, float], work: GradientWork, rate: float | None
) -> dict[str, Any]:
    """A pass's time as a multiple of its floor's, and its fraction of the roofline where a rate is given."""
    operations = OPERATIONS_PER_NORMAL * _num_normals(work)
    return {
        "estimator": name,
        **seconds,
        "over_floor": ratio_of_medians(seconds, floor),
        "roofline_fraction": None if rate is None else operations / rate / seconds["median_seconds"],
    }
