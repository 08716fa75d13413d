"""The results of variance_speed.py as tables of at most 80 columns."""

from collections.abc import Iterator

from rich.table import Table

from benchmarks.result_tables import framed_table, megabytes, targets_table
from benchmarks.saved_results import Record


def variance_tables(results: Record) -> Iterator[Table]:
    """Returns one table a section."""
    yield from _floors(results)
    yield _log_joints(results)
    yield _peers(results)
    yield _memory(results)
    yield targets_table(results["targets"])


def _floors(results: Record) -> Iterator[Table]:
    large, method = results["million"], results["method"]
    here = _size(method["num_samples"], method["num_replicates"])
    yield framed_table(
        f"{here}: over the draw floor of {_time(results['floor']['median_seconds'])}",
        ("estimator", "median", "range", "over floor", "of roofline"),
        [[_short(row["estimator"]), *_against_floor(row)] for row in results["estimators"]],
    )
    yield framed_table(
        f"{_size(large['num_samples'], large['num_replicates'])}: over the floor of "
        f"{_time(large['floor']['median_seconds'])}",
        ("estimator", "block", "median", "range", "over floor", "of roofline"),
        [[_short(row["estimator"]), _count(row["block_size"]), *_against_floor(row)] for row in large["passes"]],
    )


def _against_floor(row: Record) -> list[str]:
    fraction = row["roofline_fraction"]
    return [*_times(row), f"{row['over_floor']:.2f}", "-" if fraction is None else f"{fraction:.0%}"]


def _log_joints(results: Record) -> Table:
    rows = [
        [
            _short(row["estimator"]),
            *_times(row),
            _time(row["forward"]["median_seconds"]),
            f"{row['over_forward']:.2f}",
            f"{row['over_plain_forward']:.2f}",
        ]
        for row in results["numpyro_log_joint"]
    ]
    columns = ("estimator", "median", "range", "forward", "over it", "over plain")
    return framed_table("A log joint written with NumPyro's distributions", columns, rows)


def _peers(results: Record) -> Table:
    columns = ("peer", "time", "over ours", "truncated", "measured", "agrees")
    return framed_table("Peers on the same work", columns, [_peer(row) for row in results["peers"]])


def _peer(row: Record) -> list[str]:
    if row["status"] != "measured":
        return [f"{row['name']} {row['status']}", "", "", "", "", ""]
    measured = "all" if row["scaled_by"] == 1 else _size(row["measured_samples"], row["measured_replicates"])
    return [
        row["name"],
        _time(row["scaled_seconds"]),
        f"{row['over_ours']:,.3g}",
        f"{row['over_our_positive_normal']:,.3g}",
        measured,
        "yes" if row["agrees"] else "NO",
    ]


def _memory(results: Record) -> Table:
    rows = [
        [
            _short(row["estimator"]),
            _size(row["num_samples"], row["num_replicates"]),
            _count(row["block_size"]),
            megabytes(row["peak_resident_bytes_above_imports"]),
            megabytes(row["peak_device_bytes"]),
        ]
        for row in results["memory"]
    ]
    return framed_table(
        "Peak memory above the imports (MB)", ("estimator", "size", "block", "resident", "device"), rows
    )


def _times(row: Record) -> list[str]:
    """The median and the extremes, in one unit."""
    unit, factor = ("s", 1) if row["median_seconds"] >= 1 else ("ms", 1e3)
    median, least, most = (f"{row[f'{name}_seconds'] * factor:,.3g}" for name in ("median", "min", "max"))
    return [f"{median} {unit}", f"{least}-{most}"]


def _time(seconds: float) -> str:
    return f"{seconds:,.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _size(num_samples: int, num_replicates: int) -> str:
    return f"{num_samples:,} x {num_replicates:,}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _short(estimator: str) -> str:
    return estimator.replace("score_function+leave_one_out", "score+leave_one_out")
