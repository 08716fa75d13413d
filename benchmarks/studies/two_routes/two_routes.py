"""Distributions sampled by two routes each, and the bias and variance of gradients through relaxations.

    python -m benchmarks.studies.two_routes.two_routes

A sample may be drawn by a sampler that knows its distribution, or as a function of noise that does not depend on the
distribution's parameters. The script compares

- an Exponential by its sampler and by its quantile function at uniform noise, with Kolmogorov-Smirnov tests;
- a categorical by its sampler, by Gumbel-max, and as the largest coordinate of Gumbel-softmax samples, which is the
  categorical at any temperature, with chi-squared tests;
- the gradient of E[(values . z - target)^2] by the relaxations that Gumbel-softmax allows: their bias and variance
  against the temperature, with REBAR and the score function as unbiased references.

The cost is quadratic, so that both biases vanish with the temperature: straight-through then follows the trapezoid rule
from one outcome to the next, which is exact for it. Gradients are of two samples each, drawn independently for each
temperature. Lines are exact: quadrature over the Gumbel noise, or sums over the outcomes; of REBAR only the mean is
known. Bars are two standard errors. Writes results/two_routes.json and .png.
"""

import argparse

import jax

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.figure_drawing import save_png
from benchmarks.saved_results import Record, described_environment, save_results
from benchmarks.studies.two_routes.exact_relaxed_gradients import exact_gradient
from benchmarks.studies.two_routes.relaxed_gradients import gradient_rows
from benchmarks.studies.two_routes.route_draws import (
    categorical_draws,
    compared_categories,
    compared_exponentials,
    exponential_draws,
    relaxed_draws,
)
from benchmarks.studies.two_routes.two_routes_figure import draw_figure
from benchmarks.studies.two_routes.two_routes_setting import NUM_SAMPLES, PROBS, RATE, SHOWN, TARGET, VALUES

SEED = 0


def main(options: argparse.Namespace) -> None:
    """Compares the routes, prints the tables and saves the results."""
    exponential_key, relaxed_key, categorical_key, gradients_key = jax.random.split(jax.random.key(SEED), 4)
    num_draws = 5_000 if options.quick else 200_000
    exponential = exponential_draws(exponential_key, num_draws)
    relaxed = relaxed_draws(relaxed_key, num_draws)
    categories = categorical_draws(categorical_key, num_draws, relaxed)
    gradients = gradient_rows(gradients_key, 2_000 if options.quick else 1_000_000)
    results = {
        "environment": described_environment(SEED),
        "num_draws": num_draws,
        "exponential": {"rate": RATE} | compared_exponentials(exponential),
        "categorical": {"probs": PROBS, "routes": compared_categories(categories)},
        "relaxation": {
            "values": VALUES,
            "target": TARGET,
            "num_samples": NUM_SAMPLES,
            "exact_gradient": exact_gradient().tolist(),
            "rows": gradients,
        },
    }
    _print_results(results)
    out = out_folder(options)
    save_results(results, out, "two_routes.json")
    save_png(draw_figure(results, exponential, relaxed), out, "two_routes.png")


def _print_results(results: Record) -> None:
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return benchmark_parser(__doc__, quick="few draws, to see that it runs")


if __name__ == "__main__":
    main(parser().parse_args())
