"""The results of two_routes.py as tables of at most 80 columns."""

from benchmarks.saved_results import Record
from benchmarks.studies.two_routes.two_routes_setting import NUM_SAMPLES, PROBS, RATE, SHOWN


def print_results(results: Record) -> None:
    """Prints one table a question."""
    _print_exponential(results["exponential"], results["num_draws"])
    _print_categorical(results["categorical"])
    _print_relaxation(results["relaxation"])


def _print_exponential(exponential: Record, num_draws: int) -> None:
    print(f"Exponential({RATE:g}), {num_draws:,} draws by each route")
    print(f"{'route':<14}{'mean':>20}{'exact':>10}{'KS distance':>14}{'p':>8}")
    for row in exponential["routes"]:
        mean = f"{row['mean']:.5f} ± {row['mean_se']:.5f}"
        print(
            f"{row['route']:<14}{mean:>20}{row['exact_mean']:>10.5f}{row['ks_distance']:>14.5f}{row['p_value']:>8.3f}"
        )
    print(f"the two routes against each other: p = {exponential['two_sample_p_value']:.3f}\n")


def _print_categorical(categorical: Record) -> None:
    print(f"Categorical{PROBS}, frequencies and their standard errors")
    print(f"{'route':<18}" + "".join(f"{probability:>14g}" for probability in PROBS) + f"{'p':>6}")
    for row in categorical["routes"]:
        pairs = zip(row["frequencies"], row["frequencies_se"], strict=True)
        cells = "".join(f"{f'{frequency:.4f}±{error:.4f}':>14}" for frequency, error in pairs)
        print(f"{row['route']:<18}{cells}{row['p_value']:>6.2f}")


def _print_relaxation(relaxation: Record) -> None:
    print(f"\nGradient in logit {SHOWN}, exactly {relaxation['exact_gradient'][SHOWN]:.5f}, of {NUM_SAMPLES} samples")
    print(f"{'estimator':<29}{'temp.':>6}{'bias':>22}{'variance':>22}")
    for row in relaxation["rows"]:
        bias, variance = (
            f"{row[field][SHOWN]:.3g} ± {row[error][SHOWN]:.1g}"
            for field, error in (("bias", "mean_se"), ("variance", "variance_se"))
        )
        print(f"{row['estimator']:<29}{row['temperature']:>6g}{bias:>22}{variance:>22}")
