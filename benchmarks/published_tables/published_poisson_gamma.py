"""A published table of ELBO gradients, recomputed by the formulas that were used for it and by the right ones.

The table's 88 figures (published_poisson_gamma.csv) are means and standard deviations over 1,000 repeats on the
Poisson-Gamma problem. Three things differ from its headings:

- Each gradient row was filled in the order mean(loc), mean(scale), std(loc), std(scale), for u and then for v; the
  headings alternate mean and std.
- The score-function weights leave the two priors out: log p(x | u, v) - log q(u, v).
- The pathwise gradients evaluate d log p/dz at draws that are independent of the noise that multiplies it. That leaves
  loc its mean, with more variance, and turns the gradient of scale into 1/scale, whatever the data.

Fails (exit code 1) if a figure lies more than 5 standard errors from its recomputation; or, for the pathwise gradients
of v, whose variance is infinite, outside the central 99.9% of recomputed tables, or outside all of them where they are
too few.

    python -m benchmarks.published_tables.published_poisson_gamma
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.saved_results import described_environment, save_results
from vae_jax import distributions, elbo, score_function
from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import PoissonGamma
from vae_jax.replicates import replicate_mesh, stack_replicates
from vae_jax.runtime import start_jax
from vae_jax.statistics import summarize

PUBLISHED = Path(__file__).with_name("published_poisson_gamma.csv")
REPEATS = 1_000
LIMIT = 5.0
CENTRAL = 0.999
DTYPE = "float64"
QUICK_SAMPLES, QUICK_TABLES = 10, 20

PROBLEM = PoissonGamma(family="location_scale_normal")
PARAMS = PROBLEM.default_params
GRADIENT_COLUMNS = tuple(
    (statistic, f"{kind}_{latent}")
    for latent in ("u", "v")
    for statistic in ("mean", "std")
    for kind in ("loc", "scale")
)
"""The statistic and the parameter in each of the eight columns of a gradient row."""

Repeat = Callable[..., Any]
"""Maps a key and num_samples to one repeat's estimates, a dict by parameter."""


@dataclass(frozen=True)
class Cell:
    """One published figure and its recomputations."""

    table: str
    num_samples: int
    heading: str
    parameter: str
    statistic: str
    published: float
    as_published: float
    """Recomputed by the formula that was used: over many repeats, or the median of many tables."""
    as_published_se: float | None
    """Standard error of published - as_published; None where the figure is compared with recomputed tables."""
    low: float
    high: float
    """The published figure has to lie from low to high."""
    right: float
    exact: float | None
    exact_status: str
    agrees: bool


def main(options: argparse.Namespace) -> int:
    """Recomputes the table, prints it and saves the results. Returns 1 if a figure does not agree."""
    # Float32 noise has 2^24 values, none of which takes v below 0.004, and the gradients of v live on what lies there.
    start_jax(DTYPE)
    published = read_published()
    tables = {size: _num_tables(options, size) for size in (5, 10, 100, 1000, 10_000)}
    rows = [row for row in published if not options.quick or row[1] <= QUICK_SAMPLES]
    cells = [cell for row in rows for cell in compared(*row, num_tables=tables[row[1]])]
    ratios = efficiency_ratios()
    show(cells, ratios)
    results = {
        "environment": described_environment(0, dtype=DTYPE),
        "num_tables": tables,
        "efficiency_ratios": ratios,
        "cells": [asdict(cell) for cell in cells],
    }
    save_results(results, out_folder(options), "published_table.json")
    return 0 if all(cell.agrees for cell in cells) else 1


def _num_tables(options: argparse.Namespace, num_samples: int) -> int:
    if options.quick:
        return QUICK_TABLES
    return options.num_tables_of_10000 if num_samples >= 10_000 else options.num_tables


def read_published() -> list[tuple[str, int, list[tuple[str, float]]]]:
    """The rows as printed: table, number of samples, and (heading, figure) by position."""
    rows: dict[tuple[str, int], list[tuple[str, float]]] = {}
    with PUBLISHED.open(newline="") as file:
        for line in csv.DictReader(file):
            row = rows.setdefault((line["table"], int(line["num_samples"])), [])
            row.append((line["printed_column"], float(line["value"])))
    return [(*key, figures) for key, figures in rows.items()]


def right_repeat(estimator: str) -> Repeat:
    """The ELBO and its gradient by the right formula."""

    def repeat(key: jax.Array, num_samples: int) -> dict[str, Any]:
        loss = partial(PROBLEM.estimate, key=key, num_samples=num_samples, estimator=ESTIMATORS[estimator])
        value, gradient = jax.value_and_grad(loss)(float_params())
        return {"elbo": value} | gradient

    return repeat


def score_without_priors(key: jax.Array, num_samples: int) -> dict[str, Any]:
    """The score-function gradient as it was published: the weights leave the priors out."""

    def log_likelihood(latents: Mapping[str, Any]) -> Any:
        prior = sum(
            (p.concentration - 1) * jnp.log(latents[name])
            - p.rate * latents[name]
            + p.concentration * math.log(p.rate)
            - math.lgamma(p.concentration)
            for name, p in (("u", PROBLEM.prior_u), ("v", PROBLEM.prior_v))
        )
        return PROBLEM.log_joint(latents) - prior

    def loss(params: Mapping[str, Any]) -> Any:
        return elbo(log_likelihood, PROBLEM.q(params), key, num_samples, estimator=score_function)

    return jax.grad(loss)(float_params())


def pathwise_with_independent_draws(key: jax.Array, num_samples: int) -> dict[str, Any]:
    """The pathwise gradient as it was published: d log p/dz at one set of draws, dz/d parameter at another."""
    params = float_params()
    target_key, path_key = jax.random.split(key)
    at_target = distributions.sample(PROBLEM.q(params), target_key, num_samples)
    on_path = distributions.sample(PROBLEM.q(params), path_key, num_samples)
    slopes = jax.vmap(jax.grad(PROBLEM.log_joint))(at_target)
    gradient = {}
    for latent in ("u", "v"):
        scale = params[f"scale_{latent}"]
        noise = (on_path[latent] - params[f"loc_{latent}"]) / scale
        slope = slopes[latent] + noise / scale
        gradient |= {f"loc_{latent}": slope.mean(), f"scale_{latent}": (slope * noise).mean()}
    return gradient


AS_PUBLISHED: Mapping[str, Repeat] = {
    "elbo": right_repeat("pathwise"),
    "score_function": score_without_priors,
    "pathwise": pathwise_with_independent_draws,
}


def float_params() -> dict[str, Any]:
    """The published parameters as arrays."""
    return {name: jnp.asarray(value) for name, value in PARAMS.items()}


def compared(table: str, num_samples: int, figures: list[tuple[str, float]], *, num_tables: int) -> Iterator[Cell]:
    """Every figure of one row, with the results of its formula, of the right formula and of quadrature."""
    Console(stderr=True).print(f"{table}, {num_samples:,} samples", highlight=False)
    num_replicates = 20_000 if num_samples <= 1_000 else 4_000
    estimator = "pathwise" if table == "elbo" else table
    used = recomputed(AS_PUBLISHED[table], num_samples, num_replicates)
    right = recomputed(right_repeat(estimator), num_samples, num_replicates)
    exact = PROBLEM.exact(PARAMS, estimator)(num_samples)
    simulated = recomputed_tables(num_samples, num_tables) if table == "pathwise" else {}
    columns = (("mean", "elbo"), ("std", "elbo")) if table == "elbo" else GRADIENT_COLUMNS
    for (heading, figure), (statistic, parameter) in zip(figures, columns, strict=True):
        true = getattr(exact[parameter], statistic)
        value, error = used[statistic, parameter]
        # The figure rests on fewer repeats than its recomputation does.
        error *= math.sqrt(1 + num_replicates / REPEATS)
        low, high = value - LIMIT * error, value + LIMIT * error
        if table == "pathwise" and parameter.endswith("_v"):
            value, error = float(np.median(simulated[statistic, parameter])), None
            low, high = central_part(simulated[statistic, parameter])
        yield Cell(
            table, num_samples, heading, parameter, statistic, figure, value, error, low, high,
            right[statistic, parameter][0], true.value, true.status, low <= figure <= high,
        )  # fmt: skip


def recomputed(repeat: Repeat, num_samples: int, num_replicates: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean and standard deviation over repeats, each with its standard error, by (statistic, parameter)."""
    run = partial(stack_replicates, partial(repeat, num_samples=num_samples), mesh=replicate_mesh())
    replicates = jax.jit(run, static_argnums=1)(jax.random.key(0), num_replicates)
    statistics = jax.jit(summarize)(replicates)
    return {
        (statistic, name): (
            float(getattr(statistics, statistic)[name]),
            float(getattr(statistics, f"{statistic}_se")[name]),
        )
        for statistic in ("mean", "std")
        for name in replicates
    }


def recomputed_tables(num_samples: int, num_tables: int) -> dict[tuple[str, str], Any]:
    """Means and standard deviations of v's gradients in `num_tables` tables of 1,000 repeats each, [num_tables]."""

    def table(key: jax.Array) -> dict[tuple[str, str], Any]:
        def repeat(key: jax.Array) -> dict[str, Any]:
            gradient = pathwise_with_independent_draws(key, num_samples)
            return {name: gradient[name] for name in ("loc_v", "scale_v")}

        repeats = stack_replicates(repeat, key, REPEATS)
        return {("mean", name): x.mean() for name, x in repeats.items()} | {
            ("std", name): x.std(ddof=1) for name, x in repeats.items()
        }

    run = jax.jit(partial(stack_replicates, table, mesh=replicate_mesh()), static_argnums=1)
    return jax.tree.map(np.asarray, run(jax.random.key(1), num_tables))


def central_part(tables: Any) -> tuple[float, float]:
    """Range of the central 99.9% of recomputed tables, or of all of them where they are too few."""
    if len(tables) * (1 - CENTRAL) / 2 >= 1:
        low, high = np.quantile(tables, [(1 - CENTRAL) / 2, (1 + CENTRAL) / 2])
        return float(low), float(high)
    return float(tables.min()), float(tables.max())


def efficiency_ratios() -> dict[str, float]:
    """The exact number of score-function samples with the variance of one pathwise sample."""
    score, path = (PROBLEM.exact(PARAMS, name)(1) for name in ("score_function", "pathwise"))
    stds = {name: (score[name].std.value, path[name].std.value) for name in ("loc_u", "scale_u")}
    return {name: (a / b) ** 2 for name, (a, b) in stds.items() if a is not None and b is not None}


def show(cells: list[Cell], ratios: Mapping[str, float]) -> None:
    """Prints a table of each kind, the efficiency ratios and the number of figures that agree."""
    console = Console()
    for table in dict.fromkeys(cell.table for cell in cells):
        console.print(_printed(table, [cell for cell in cells if cell.table == table]))
    for name, ratio in ratios.items():
        console.print(
            f"{name}: the score function needs {ratio:.0f} samples for the variance of one pathwise sample.",
            highlight=False,
        )
    off = [cell for cell in cells if not cell.agrees]
    console.print(
        f"{len(cells) - len(off)} of {len(cells)} published figures agree with the formula that was used.",
        highlight=False,
    )


def _printed(title: str, cells: list[Cell]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("samples", "heading", "holds", "published", "recomputed", "right", "exact", ""):
        table.add_column(header, justify="left" if header in ("heading", "holds") else "right", no_wrap=True)
    for cell in cells:
        table.add_row(
            str(cell.num_samples),
            cell.heading.replace("sigma", "σ").replace("mu", "μ"),
            f"{cell.statistic} {cell.parameter}".replace("scale", "σ").replace("loc", "μ"),
            f"{cell.published:.4g}",
            f"{cell.low:.3g} to {cell.high:.3g}"
            if cell.as_published_se is None
            else f"{cell.as_published:.4g} ± {cell.as_published_se:.2g}",
            f"{cell.right:.4g}",
            f"{cell.exact:.4g}" if cell.exact is not None else {"infinite": "∞"}.get(cell.exact_status, "none"),
            "" if cell.agrees else "off",
        )
    return table


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, quick=f"rows of at most {QUICK_SAMPLES} samples, and few recomputed tables")
    parser.add_argument(
        "--num-tables", type=int, default=2_000, help="recomputed tables for the pathwise gradients of v (2,000)"
    )
    parser.add_argument(
        "--num-tables-of-10000", type=int, default=500, help="the same at 10,000 samples a repeat (500)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_parse()))
