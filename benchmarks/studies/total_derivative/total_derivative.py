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

import jax

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.figure_drawing import save_png
from benchmarks.saved_results import described_environment, save_results
from benchmarks.studies.total_derivative.gradient_parts import measured_rows
from benchmarks.studies.total_derivative.studied_gaussians import PARAMETERS, PROBLEM, studied_places
from benchmarks.studies.total_derivative.total_derivative_figure import draw_figure
from benchmarks.studies.total_derivative.total_derivative_tables import print_results

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
    print_results(results)
    out = out_folder(options)
    save_results(results, out, "total_derivative.json")
    save_png(draw_figure(rows), out, "total_derivative.png")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return benchmark_parser(__doc__, quick="few replicates, to see that it runs")


if __name__ == "__main__":
    main(parser().parse_args())
