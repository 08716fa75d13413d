"""The total derivative of the ELBO split into its path and its score, as q approaches the target.

    python -m benchmarks.studies.total_derivative.total_derivative

Along a reparameterized sample the gradient of log p(z) - log q(z; theta) is made of two parts,

    total = path - score,

the path's through z alone and the score d log q(z; theta) / d theta at a fixed z, whose mean is zero. So total +
c score is unbiased for any c: c = 0 keeps the score (the total derivative), c = 1 drops it (sticking the landing), and
c* = -Cov(total, score) / Var(score) has the least variance. The target is a standard Gaussian, q = Normal(loc, scale).
The script measures

- both parts' means and variances and Cov(total, score), as q goes to the target on a straight line;
- the variance with the score kept, dropped and weighted by c*, as q's scale varies at a fixed loc;
- c* and the variance against c.

For a Gaussian log q is constant along the path but for the entropy, so the total derivative is the gradient with the
closed-form entropy, sample by sample. In units of the target's scale c* = scale^2 for loc and scale alike: dropping the
score helps if and only if scale^2 > 1/2. Gradients are of one sample each. Bars are two standard errors, lines are
exact. Writes results/total_derivative.json and .png.

Reference: Roeder, Wu & Duvenaud (2017), section 3; Geffner & Domke (2018, 2020) for weighting by c*.
"""

import argparse
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.figure_drawing import save_png
from benchmarks.saved_results import Record, described_environment, save_results
from benchmarks.studies.total_derivative.gradient_parts import measured_rows
from benchmarks.studies.total_derivative.studied_gaussians import FIXED_LOC, PARAMETERS, PROBLEM, studied_places
from benchmarks.studies.total_derivative.total_derivative_figure import draw_figure

SEED = 0


def main(options: argparse.Namespace) -> None:
    """Measures every study, prints the tables and saves the results."""
    num_replicates = 2_000 if options.quick else 400_000
    places = studied_places()
    keys = jax.random.split(jax.random.key(SEED), len(places))
    rows = [row for place, key in zip(places, keys, strict=True) for row in measured_rows(place, key, num_replicates)]
    results = {
        "environment": described_environment(SEED),
        "target": dict(zip(PARAMETERS, PROBLEM.posterior, strict=True)),
        "num_replicates": num_replicates,
        "rows": rows,
    }
    _print_results(results)
    out = out_folder(options)
    save_results(results, out, "total_derivative.json")
    save_png(draw_figure(rows), out, "total_derivative.png")


def _print_results(results: Record) -> None:
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return benchmark_parser(__doc__, quick="few replicates, to see that it runs")


if __name__ == "__main__":
    main(parser().parse_args())
