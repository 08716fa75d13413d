"""What the results are to show, and whether they do."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

MOST_OVER_FLOOR = 2.0
MOST_OVER_FORWARD = 1.8
MOST_OVER_FLOOR_OF_MILLION = 4.0
MOST_BYTES = 500e6
MOST_GROWTH = 1.25
"""Of peak memory over a hundredfold number of replicates; the peak varies by a tenth from process to process."""

LEAST_OVER_PEERS = 1.0
LEAST_OVER_SAMPLE_LOOP = 1_000.0


def targets(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every target with its limit and the worst that was measured; unknown where nothing was."""
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


def _each(rows: Iterable[Mapping[str, Any]], field: str) -> Iterator[float]:
    return (row[field] for row in rows)


def _over_forward(results: Mapping[str, Any]) -> Iterator[float]:
    return _each(results["numpyro_log_joint"], "over_forward")


def _in_blocks(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (row for row in rows if row["block_size"] is not None)


def _growths(memory: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    peaks: dict[Any, dict[int, float]] = {}
    for row in memory:
        case = (row["estimator"], row["num_samples"], row["block_size"])
        peaks.setdefault(case, {})[row["num_replicates"]] = _peak(row)
    return (each[max(each)] / each[min(each)] for each in peaks.values() if len(each) > 1)


def _peak(row: Mapping[str, Any]) -> float:
    on_device = row["peak_device_bytes"]
    return row["peak_resident_bytes_above_imports"] if on_device is None else on_device


def at_most(target: str, limit: float, values: Iterable[float]) -> dict[str, Any]:
    return _row(target, limit, max(values, default=None), lambda worst: worst <= limit)


def at_least(target: str, limit: float, values: Iterable[float]) -> dict[str, Any]:
    return _row(target, limit, min(values, default=None), lambda worst: worst >= limit)


def _row(target: str, limit: float, worst: float | None, holds: Callable[[float], bool]) -> dict[str, Any]:
    return {"target": target, "limit": limit, "worst": worst, "met": None if worst is None else holds(worst)}
