"""One distribution reached by two routes, and what a relaxation of the second costs.

    python benchmarks/two_routes.py

A sample may be drawn by a sampler that knows its distribution, or as a function of noise that does not depend on the
distribution's parameters. The script compares

- an Exponential by its sampler and by its quantile function at uniform noise, with Kolmogorov-Smirnov tests;
- a categorical by its sampler, by Gumbel-max, and as the largest coordinate of Gumbel-softmax samples, which is the
  categorical at any temperature, with chi-squared tests;
- the gradient of E[(values . z - target)^2] by the relaxations that Gumbel-softmax allows: their bias and variance
  against the temperature, with REBAR and the score function as unbiased references.

The cost is quadratic, so that both biases vanish with the temperature: straight-through then follows the trapezoid rule
from one outcome to the next, which is exact for it. Gradients are of two samples each, drawn independently for each
temperature. Lines are exact: quadrature over the Gumbel noise, or sums over the
outcomes; of REBAR only the mean is known. Bars are two standard errors. Writes results/two_routes.json and .png.
"""

import argparse

import jax

from command_line import saving_parser
from routes.draws import (
    categorical_draws,
    compared_categories,
    compared_exponentials,
    exponential_draws,
    relaxed_draws,
)
from routes.exact import exact_gradient
from routes.figure import draw_figure
from routes.gradients import gradient_rows
from routes.setting import NUM_SAMPLES, PROBS, RATE, TARGET, VALUES
from routes.tables import print_results
from saving import save_png
from vae_jax.files import write_json
from vae_jax.runtime import environment

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
        "environment": environment("float32", SEED),
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
    print_results(results)
    write_json(options.out / "two_routes.json", results)
    save_png(draw_figure(results, exponential, relaxed), options.out / "two_routes.png")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return saving_parser(__doc__, quick="few draws, to see that it runs")


if __name__ == "__main__":
    main(parser().parse_args())
