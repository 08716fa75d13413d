"""The results as tables of at most 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from derivative.studies import FIXED_LOC

Row = Mapping[str, Any]


def print_results(results: Mapping[str, Any]) -> None:
    """Prints the parts of the gradient, what dropping the score does, and what rounding leaves."""
    rows = results["rows"]
    print(f"total = path - score, gradients of one sample, {results['num_replicates']:,} replicates")
    _print_parts(_of_study(rows, "line"))
    _print_weights(_of_study(rows, "line"), "t", "on a line to the target")
    _print_weights(_of_study(rows, "scale"), "scale", f"at loc {FIXED_LOC}")
    print(f"\n|total - (path - score)|, at most: {_largest(rows, 'largest_gap'):.1g}")
    largest = _largest(rows, "largest_gap_to_closed_form_entropy")
    print(f"|total - gradient with the closed-form entropy|, at most: {largest:.1g}")


def _of_study(rows: Sequence[Row], study: str) -> list[Row]:
    return [row for row in rows if row["study"] == study]


def _largest(rows: Sequence[Row], field: str) -> float:
    return max(row[field] for row in rows)


def _print_parts(rows: Sequence[Row]) -> None:
    print("on a line to the target: means, and Cov(total, score)")
    print(f"{'t':>4} {'':<6}{_wide(('path', 'score', 'Cov(total, score)'))}")
    for row in rows:
        print(f"{row['t']:>4.1f} {row['parameter']:<6}{_cells(row, ('path_mean', 'score_mean', 'covariance'))}")


def _print_weights(rows: Sequence[Row], place: str, title: str) -> None:
    print(f"\n{title}: variance, score kept and dropped, and best weight")
    print(f"{place:>5} {'':<6}{_wide(('kept, c = 0', 'dropped, c = 1', 'c*'))}  dropping")
    for row in rows:
        cells = _cells(row, ("total_variance", "path_variance", "best_coefficient"))
        print(f"{row[place]:>5.2f} {row['parameter']:<6}{cells}  {_verdict(row)}")


def _cells(row: Row, fields: Sequence[str]) -> str:
    return _wide([f"{row[field]:.4g} ± {row[f'{field}_se']:.1g}" for field in fields])


def _wide(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>19}" for cell in cells)


def _verdict(row: Row) -> str:
    difference = row["path_variance"] - row["total_variance"]
    if abs(difference) < 2 * np.hypot(row["path_variance_se"], row["total_variance_se"]):
        return "either"
    return "helps" if difference < 0 else "hurts"
