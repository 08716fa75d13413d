"""Speed of coordinate ascent and of stochastic fits, compared with a loop fused by hand and with peers.

    python -m benchmarks.inference.inference_speed

All in one process, in float32 (scikit-learn computes in float64), medians over rounds in which every candidate runs
once:

- Coordinate ascent on the Gaussian-Poisson mixture: 1,000,000 simulated events, 10 components, 2 dimensions, on one
  device and with the events sharded over one device a core. The floor is the same number of passes over the data by
  `fused_mixture_pass.c`, which the system's C compiler fuses for these sizes: logits, responsibilities and weighted
  sums in blocks, on one core and on all. Its small updates between passes are left out. The ratio of the sweeps leaves
  out the start and the first sweep; the ratio of the whole run also holds the k-means++ start, ten passes more.
- 100 restarts on 1,000 events in one call.
- The normal-Wishart mixture compared with scikit-learn's `BayesianGaussianMixture`, sweep by sweep from the same start.
- `fit` compared with NumPyro's `SVI.run` with its progress bar, as a user gets it, and without: the same model,
  mean-field normal, optimizer and number of particles. Steps a second are those of a long run less a short one.
"""

import argparse
from collections.abc import Iterator
from itertools import islice

import jax

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.inference.coordinate_ascent_speed import restarts, sweeps
from benchmarks.inference.numpyro_fits import fits, numpyro_models
from benchmarks.inference.scikit_learn_mixture import normal_wishart
from benchmarks.result_tables import open_table, print_tables
from benchmarks.saved_results import Record, described_environment, save_results
from vae_jax.runtime import start_jax

FULL = {
    "events": 1_000_000,
    "sweeps": 100,
    "points": 100_000,
    "models": 2,
    "steps": 100_000,
    "steps_with_bar": 12_000,
    "short_steps": 2_000,
}
QUICK = {
    "events": 5_000,
    "sweeps": 5,
    "points": 500,
    "models": 1,
    "steps": 1_500,
    "steps_with_bar": 1_500,
    "short_steps": 1_000,
}


def main(options: argparse.Namespace) -> None:
    """Measures everything, prints the table and saves the results."""
    start_jax("float32")
    if not options.quick:
        jax.config.update("jax_enable_compilation_cache", False)
    size = QUICK if options.quick else FULL
    rounds = 1 if options.quick else options.rounds
    models = islice(numpyro_models().items(), size["models"])
    results = {
        "environment": described_environment(0, ("numpyro", "scikit-learn")),
        "method": size | {"rounds": rounds},
        "cavi": sweeps(size["events"], size["sweeps"], rounds),
        "restarts": restarts(rounds),
        "normal_wishart": normal_wishart(size["points"], rounds),
        "fit": [fits(name, model, size, rounds) for name, model in models],
    }
    print_tables([open_table("", ("quantity", "measured", "range of rounds"), list(_rows(results)))])
    save_results(results, out_folder(options), f"inference_speed_{jax.default_backend()}.json")


def _rows(results: Record) -> Iterator[tuple[str, str, str]]:
    cavi, wishart = results["cavi"], results["normal_wishart"]
    for name, result in cavi.items():
        if isinstance(result, dict) and "median" in result:
            yield (f"cavi, {name.replace('_', ' ')}", *_cells(result))
    yield "cavi, one device, seconds a run", f"{cavi['seconds']['one_device']:.3g}", ""
    yield "cavi, sharded, seconds a run", f"{cavi['seconds']['sharded']:.3g}", ""
    yield "cavi, memory, bytes an event", f"{cavi['temporary_bytes_an_event']:.3g}", ""
    yield "100 restarts on 1,000 events, seconds", f"{results['restarts']['seconds']:.3g}", ""
    yield ("scikit-learn over normal-Wishart", *_cells(wishart["scikit_learn_over_vae_jax"]))
    yield "difference of the bounds' rises, nats", f"{wishart['largest_difference_of_rises']:.1g}", ""
    for row in results["fit"]:
        yield (f"NumPyro over fit, {row['model']}", *_cells(row["faster_than_numpyro"]))
        yield ("  without its bar", *_cells(row["faster_than_numpyro_without_bar"]))
        yield "  steps a second of fit", f"{row['steps_a_second']['vae_jax']:,.0f}", ""


def _cells(ratio: Record) -> tuple[str, str]:
    return f"{ratio['median']:.2f}", f"{ratio['min']:.2f} to {ratio['max']:.2f}"


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, quick="small sizes and one round, whose times say nothing")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that medians are taken over (7)")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
