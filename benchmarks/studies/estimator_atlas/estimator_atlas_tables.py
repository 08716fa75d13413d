"""The results of estimator_atlas.py as tables of at most 80 columns."""

from collections.abc import Sequence

from benchmarks.saved_results import Record
from benchmarks.studies.estimator_atlas.gradient_signals import Signal
from benchmarks.studies.estimator_atlas.signal_slopes import Slope
from benchmarks.studies.estimator_atlas.variance_agreement import deviations


def print_variances(summary: Record) -> None:
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


def print_slopes(slopes: Sequence[Slope], signals: Sequence[Signal]) -> None:
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
