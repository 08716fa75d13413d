"""The targets of variance_speed.py, and whether they are met."""

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.saved_results import Record
from benchmarks.target_limits import at_least, at_most

MOST_OVER_FLOOR = 2.0
MOST_OVER_FORWARD = 1.8
MOST_OVER_FLOOR_OF_MILLION = 4.0
MOST_BYTES = 500e6
MOST_GROWTH = 1.25
"""Growth of peak memory over a hundredfold number of replicates. Peaks vary by a tenth between processes."""

LEAST_OVER_PEERS = 1.0
LEAST_OVER_SAMPLE_LOOP = 1_000.0


def variance_targets(results: Record) -> list[dict[str, Any]]:
    """Every target with its limit and the worst measured value, None where nothing was measured."""
    measured = [row for row in results["peers"] if row["status"] == "measured"]
    truncated = [row for row in measured if not row["counterpart"].startswith("numpyro_log_joint")]
    large = list(_in_blocks(results["million"]["passes"]))
    loops = [row for row in measured if "loop over samples" in row["name"]]
    return [
        at_most("time over the draw floor", MOST_OVER_FLOOR, _each(results["estimators"], "over_floor")),
        at_most("NumPyro log joint, over its forward pass", MOST_OVER_FORWARD, _over_forward(results)),
        at_least("ahead of every peer, same family", LEAST_OVER_PEERS, _each(measured, "over_ours")),
        at_least("the same, ours truncated", LEAST_OVER_PEERS, _each(truncated, "over_our_positive_normal")),
        at_least("ahead of a loop over samples", LEAST_OVER_SAMPLE_LOOP, _each(loops, "over_ours")),
        at_most("million samples in blocks, over the floor", MOST_OVER_FLOOR_OF_MILLION, _each(large, "over_floor")),
        at_most("million samples in blocks, bytes", MOST_BYTES, map(_peak, _in_blocks(results["memory"]))),
        at_most("growth of memory, 100 times the replicates", MOST_GROWTH, _growths(results["memory"])),
    ]


def _each(rows: Iterable[Record], field: str) -> Iterator[float]:
    return (row[field] for row in rows)


def _over_forward(results: Record) -> Iterator[float]:
    return _each(results["numpyro_log_joint"], "over_forward")


def _in_blocks(rows: Iterable[Record]) -> Iterator[Record]:
    return (row for row in rows if row["block_size"] is not None)


def _growths(memory: Iterable[Record]) -> Iterator[float]:
    peaks: dict[Any, dict[int, float]] = {}
    for row in memory:
        case = (row["estimator"], row["num_samples"], row["block_size"])
        peaks.setdefault(case, {})[row["num_replicates"]] = _peak(row)
    return (each[max(each)] / each[min(each)] for each in peaks.values() if len(each) > 1)


def _peak(row: Record) -> float:
    on_device = row["peak_device_bytes"]
    return row["peak_resident_bytes_above_imports"] if on_device is None else on_device
