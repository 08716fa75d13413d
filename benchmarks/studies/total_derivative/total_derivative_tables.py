"""The results of total_derivative.py as tables of at most 80 columns."""

from collections.abc import Sequence

import numpy as np

from benchmarks.saved_results import Record
from benchmarks.studies.total_derivative.studied_gaussians import FIXED_LOC


def print_results(results: Record) -> None:
    """Prints the parts of the gradient, the effect of dropping the score, and the rounding errors."""
    rows = results["rows"]
    print(f"total = path - score, gradients of one sample, {results['num_replicates']:,} replicates")
    _print_parts(_of_study(rows, "line"))
    _print_weights(_of_study(rows, "line"), "t", "on a line to the target")
    _print_weights(_of_study(rows, "scale"), "scale", f"at loc {FIXED_LOC}")
    print(f"\n|total - (path - score)|, at most: {_largest(rows, 'largest_gap'):.1g}")
    largest = _largest(rows, "largest_gap_to_closed_form_entropy")
    print(f"|total - gradient with the closed-form entropy|, at most: {largest:.1g}")


def _of_study(rows: Sequence[Record], study: str) -> list[Record]:
    return [row for row in rows if row["study"] == study]


def _largest(rows: Sequence[Record], field: str) -> float:
    return max(row[field] for row in rows)


def _print_parts(rows: Sequence[Record]) -> None:
    print("on a line to the target: means, and Cov(total, score)")
    print(f"{'t':>4} {'':<6}{_wide(('path', 'score', 'Cov(total, score)'))}")
    for row in rows:
        print(f"{row['t']:>4.1f} {row['parameter']:<6}{_cells(row, ('path_mean', 'score_mean', 'covariance'))}")


def _print_weights(rows: Sequence[Record], place: str, title: str) -> None:
    print(f"\n{title}: variance, score kept and dropped, and best weight")
    print(f"{place:>5} {'':<6}{_wide(('kept, c = 0', 'dropped, c = 1', 'c*'))}  dropping")
    for row in rows:
        cells = _cells(row, ("total_variance", "path_variance", "best_coefficient"))
        print(f"{row[place]:>5.2f} {row['parameter']:<6}{cells}  {_verdict(row)}")


def _cells(row: Record, fields: Sequence[str]) -> str:
    return _wide([f"{row[field]:.4g} ± {row[f'{field}_se']:.1g}" for field in fields])


def _wide(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>19}" for cell in cells)


def _verdict(row: Record) -> str:
    difference = row["path_variance"] - row["total_variance"]
    if abs(difference) < 2 * np.hypot(row["path_variance_se"], row["total_variance_se"]):
        return "either"
    return "helps" if difference < 0 else "hurts"
