"""Variances and signal-to-noise ratios of gradient estimators, measured on exact lines.

    python -m benchmarks.studies.estimator_atlas.estimator_atlas

- The variance of gradient estimators of E[f(z)], z ~ Normal(1, 1), against the parameter of the cost f: points on exact
  lines (Mohamed, Rosca, Figurnov & Mnih 2020, figures 2 and 3).
- The signal-to-noise ratio of the importance-weighted bound's gradients against K, the samples in one bound, and M, the
  independent bounds averaged (Rainforth et al. 2018; Tucker, Lawson, Gu & Maddison 2019). q's parameters lose as
  1 / sqrt(K) along the path and gain as sqrt(K) when doubly reparameterized; the model's gain as sqrt(K); both gain as
  sqrt(M). The means are compared with the exact ones.

Writes results/estimator_atlas.json, estimator_atlas.png and importance_weighted_snr.png.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.figure_drawing import save_png
from benchmarks.saved_results import Record, described_environment, save_results
from benchmarks.studies.estimator_atlas.cost_panels import PANELS
from benchmarks.studies.estimator_atlas.estimator_variances import (
    SAMPLES_OF_ESTIMATE,
    exact_variances,
    measured_variances,
)
from benchmarks.studies.estimator_atlas.gradient_signals import Signal, measured_signals
from benchmarks.studies.estimator_atlas.signal_figure import signal_figure
from benchmarks.studies.estimator_atlas.signal_slopes import Slope, fitted_slopes
from benchmarks.studies.estimator_atlas.variance_agreement import compared, deviations
from benchmarks.studies.estimator_atlas.variance_figure import variance_figure
from vae_jax.runtime import start_jax

SEED = 0


@dataclass(frozen=True)
class AtlasSizes:
    """AtlasSizes and numbers of runs."""

    num_costs: int
    num_replicates: int
    num_measured: int
    """Values of each cost's parameter that are measured."""
    num_drawn: int
    """Values of each cost's parameter that a line is drawn through."""
    num_bounds: int
    """Bounds for each signal-to-noise ratio."""
    num_samples: tuple[int, ...]
    """The values of K."""
    least_fitted: int
    """The least K that slopes are fitted to: the laws hold for large K."""
    num_averaged: tuple[int, ...]
    """The values of M."""


FULL = AtlasSizes(
    num_costs=3,
    num_replicates=100_000,
    num_measured=9,
    num_drawn=61,
    num_bounds=2**18,
    num_samples=tuple(2**power for power in range(1, 11)),
    least_fitted=16,
    num_averaged=tuple(2**power for power in range(7)),
)
QUICK = AtlasSizes(
    num_costs=1,
    num_replicates=2_000,
    num_measured=1,
    num_drawn=1,
    num_bounds=2**13,
    num_samples=(2, 8, 16),
    least_fitted=2,
    num_averaged=(1, 16),
)


def main(options: argparse.Namespace) -> None:
    """Measures both pictures, prints the tables and saves the results."""
    sizes = QUICK if options.quick else FULL
    panels = PANELS[: sizes.num_costs]
    cost_key, bound_key = jax.random.split(jax.random.key(SEED))
    points = measured_variances(cost_key, panels, sizes.num_measured, sizes.num_replicates)
    summary = compared(points)
    lines = exact_variances(panels, sizes.num_drawn)
    signals = measured_signals(bound_key, sizes.num_bounds, sizes.num_samples, sizes.num_averaged)
    slopes = fitted_slopes(signals, sizes.least_fitted)
    _print_variances(summary)
    _print_slopes(slopes, signals)
    results = {
        "environment": described_environment(SEED),
        "num_replicates": sizes.num_replicates,
        "samples_of_estimate": SAMPLES_OF_ESTIMATE,
        "variances": [point._asdict() for point in points],
        "variances_compared": summary,
        "num_bounds": sizes.num_bounds,
        "signals": [signal._asdict() for signal in signals],
        "slopes": [slope._asdict() for slope in slopes],
    }
    out = out_folder(options)
    save_png(variance_figure(panels, points, lines), out, "estimator_atlas.png")
    save_png(signal_figure(signals), out, "importance_weighted_snr.png")
    save_results(results, out, "estimator_atlas.json")


def _print_variances(summary: Record) -> None:
    """Prints the distances of the variances from the exact ones."""
    print("Variances against the exact ones, |z| in standard errors")
    print(f"{'':<42}{'points':>7}{'|z|<1':>6}{'|z|<2':>6}{'mean':>6}{'max':>6}{'likely':>7}")
    rows = {
        **summary["by_estimator"],
        "all, by measured standard errors": summary["measured_standard_errors"],
        "all, by exact standard errors": summary["exact_standard_errors"],
    }
    for name, row in rows.items():
        counts = f"{row['num_points']:>7}{row['num_within_1']:>6}{row['num_within_2']:>6}"
        print(f"{name:<42}{counts}{row['mean_abs_z']:>6.2f}{row['max_abs_z']:>6.2f}{row['median_max_abs_z']:>7.2f}")
    print("expected mean of |z|: 0.80; likely: the median of the largest of as many |z|")
    zeros, largest = summary["num_exact_zeros"], summary["largest_variance_of_exact_zeros"]
    print(f"{zeros} points whose exact variance is 0: measured at most {largest:.1e}")


def _print_slopes(slopes: Sequence[Slope], signals: Sequence[Signal]) -> None:
    """Prints slopes with the theory's, and the distances of the means from the exact ones."""
    print("\nSlopes of log signal-to-noise in K samples of a bound and M bounds averaged")
    print(f"{'gradient':<23}{'parameter':<11}{'in':<3}{'measured':>18}{'exact mean':>18}{'theory':>7}")
    for row in slopes:
        measured = f"{row.slope:.4f} ± {row.slope_se:.4f}"
        known = f"{row.known_signal_slope:.4f} ± {row.known_signal_slope_se:.4f}"
        print(f"{row.gradient:<23}{row.parameter:<11}{row.size:<3}{measured:>18}{known:>18}{row.theory:>7.1f}")
    print("exact mean: the exact mean of the gradient over its measured std")
    _print_means(signals)


def _print_means(signals: Sequence[Signal]) -> None:
    # One draw's means by loc and by prior_loc go together, so that these are fewer than as many independent ones.
    found = deviations([(signal.mean - signal.exact_mean) / signal.mean_se for signal in signals])
    mean, largest, likely = (found[name] for name in ("mean_abs_z", "max_abs_z", "median_max_abs_z"))
    print(f"{len(signals)} means against the exact ones: |z| {mean:.2f} on average, {largest:.2f} at most")
    print(f"(likely, of as many: {likely:.2f})")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return benchmark_parser(__doc__, quick="small sizes, to see that everything runs")


if __name__ == "__main__":
    start_jax("float32")
    main(parser().parse_args())
