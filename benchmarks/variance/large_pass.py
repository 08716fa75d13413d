"""Passes over more samples than a cache holds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.interleaved_timing import interleaved
from benchmarks.variance.draw_floor import chosen_floor, over_floor, spread
from benchmarks.variance.gradient_passes import blocked_pass
from benchmarks.variance.variance_work import GradientWork

NUM_BLOCKS = 100
"""The number of blocks that the samples of a large pass are cut into."""


def block_size_of(num_samples: int) -> int:
    """The samples in one block."""
    return num_samples // NUM_BLOCKS


def large_pass(work: GradientWork, estimators: Sequence[str], rounds: int, rate: float | None) -> dict[str, Any]:
    """Times each estimator with the samples as one array and in blocks."""
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
