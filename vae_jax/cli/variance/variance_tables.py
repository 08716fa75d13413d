"""The table of a variance study, for a terminal of 80 columns."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vae_jax.cli.number_formats import short_duration, with_error
from vae_jax.cli.terminal_tables import WIDTH, add_numbers, add_words, plain_table, print_saved
from vae_jax.estimators import REGISTRY
from vae_jax.problems import PoissonGamma, Problem
from vae_jax.problems.poisson_gamma.poisson_gamma_truncation import truncation_effect
from vae_jax.studies.variance_rows import VarianceRow, is_rounding
from vae_jax.studies.variance_study import VarianceStudy

DIVERGENT, UNBELIEVABLE, NONFINITE, BIASED = "∞", "?", "N", "b"

MOST_IN_FULL = 6
"""Estimators that have a table each; more are shown side by side, at the largest number of samples only."""


def print_study(study: VarianceStudy, problem: Problem, params: Mapping[str, Any], out: Path) -> None:
    """Prints every estimate with its exact value and its cost, and explains the marks."""
    console = Console()
    tables = _in_full(study, problem) if len(study.estimators) <= MOST_IN_FULL else _side_by_side(study, problem)
    for table in (*tables, _costs(study)):
        console.print(table)
    for line in _explanations(study, problem, params):
        console.print(line, highlight=False, soft_wrap=False)
    print_saved(console, out, "variance.json", "variance.csv", "replicates.png", "std.png", "config.json")


def _in_full(study: VarianceStudy, problem: Problem) -> Iterator[Table]:
    """A table for each estimator."""
    value, *gradient = study.parameters
    name = _shown(problem)
    if study.values_are_shared:
        yield _estimator_table(f"{name} (the same under every estimator)", study, study.estimators[0], (value,))
    else:
        for estimator in study.estimators:
            yield _estimator_table(f"{name}: {estimator}", study, estimator, (value,))
    for estimator in study.estimators:
        yield _estimator_table(f"gradient of the {name}: {estimator}", study, estimator, tuple(gradient))


def _shown(problem: Problem) -> str:
    return problem.value_name.upper() if problem.value_name == "elbo" else problem.value_name


def _side_by_side(study: VarianceStudy, problem: Problem) -> Iterator[Table]:
    """A table for each parameter, at the largest number of samples."""
    size = study.num_samples[-1]
    for parameter in study.parameters:
        rows = [study.row(estimator, parameter, size) for estimator in study.estimators]
        exact = next((row for row in rows if row.exact_mean is not None), rows[0])
        what = _shown(problem) if parameter == study.parameters[0] else f"gradient by {parameter}"
        table = plain_table(f"{what}, {size:,} samples: exact {_exact(exact.exact_mean, exact.exact_mean_status)}")
        add_words(table, "")
        add_numbers(table, "mean ± se", "std ± se", "exact std")
        add_words(table, "")
        for row in rows:
            table.add_row(row.estimator, *_figures(row), _exact(row.exact_std, row.exact_std_status), _mark(row))
        yield table


def _figures(row: VarianceRow) -> tuple[str, str]:
    """Mean and standard deviation with their errors."""
    if is_rounding(row):
        return f"{row.mean:.7g}", "rounding"
    return with_error(row.mean, row.mean_se), with_error(row.std, row.std_se)


def _costs(study: VarianceStudy) -> Table:
    """The cost of an estimate, and of a given error: variance times time, over the least of any estimator."""
    size = study.num_samples[-1]
    table = plain_table(f"cost at {size:,} samples, and variance x time over the least")
    parameters = _fitting(study)
    add_words(table, "")
    add_numbers(table, "evals", "time", *parameters)
    relative = {parameter: _over_the_least(study, parameter, size) for parameter in parameters}
    for name in study.estimators:
        row = study.row(name, study.parameters[0], size)
        shares = [by_estimator[name] for by_estimator in relative.values()]
        table.add_row(name, f"{row.num_evaluations:,}", short_duration(row.seconds_per_estimate), *shares)
    return table


def _fitting(study: VarianceStudy) -> Sequence[str]:
    """The first of the parameters: as many as have room next to the estimators' names."""
    room = WIDTH - max(map(len, study.estimators)) - len("  10,000 1.23 us ")
    parameters = list(study.parameters[1:])
    while sum(max(len(name), len("1.23e+4")) + 1 for name in parameters) > room:
        parameters.pop()
    return parameters


def _over_the_least(study: VarianceStudy, parameter: str, size: int) -> dict[str, str]:
    """Variance times time of each estimator over the least of those that have a variance."""
    rows = {name: study.row(name, parameter, size) for name in study.estimators}
    costs = {
        name: row.variance_seconds
        for name, row in rows.items()
        if not is_rounding(row) and 0 < row.variance_seconds < math.inf
    }
    least = min(costs.values(), default=math.nan)
    return {
        name: f"{costs[name] / least:.3g}" if name in costs else "0" if is_rounding(row) else "-"
        for name, row in rows.items()
    }


def _estimator_table(title: str, study: VarianceStudy, estimator: str, parameters: tuple[str, ...]) -> Table:
    table = plain_table(title)
    add_words(table, "")
    add_numbers(table, "samples", "mean ± se", "exact", "std ± se", "exact")
    add_words(table, "")
    for parameter in parameters:
        for size in study.num_samples:
            row = study.row(estimator, parameter, size)
            table.add_row(
                parameter if size == study.num_samples[0] else "",
                f"{size:,}",
                _figures(row)[0],
                _exact(row.exact_mean, row.exact_mean_status),
                _figures(row)[1],
                _exact(row.exact_std, row.exact_std_status),
                _mark(row),
            )
        table.add_section()
    return table


def _exact(value: float | None, status: str) -> str:
    return {"infinite": "∞"}.get(status, status) if value is None else f"{value:#.6g}" if value else "0"


def _mark(row: VarianceRow) -> str:
    if row.num_nonfinite:
        return NONFINITE
    if not REGISTRY[row.estimator].unbiased:
        return BIASED
    if {row.exact_mean_status, row.exact_std_status} & {"infinite", "undefined"}:
        return DIVERGENT
    return "" if row.reliable or is_rounding(row) else UNBELIEVABLE


def _explanations(study: VarianceStudy, problem: Problem, params: Mapping[str, Any]) -> list[str]:
    marks = {_mark(row) for row in study.rows}
    lines = []
    if NONFINITE in marks:
        worst = max(row.num_nonfinite for row in study.rows)
        lines.append(f"{NONFINITE}  Up to {worst:,} replicates of a cell were NaN or infinite: its moments are too.")
    if DIVERGENT in marks:
        lines.append(
            f"{DIVERGENT}  q has density at zero, where this gradient grows like 1/z: its mean does not exist and its "
            "variance is infinite, however steady the numbers look. --family normal follows a path without this term."
        )
    if UNBELIEVABLE in marks:
        lines.append(
            f"{UNBELIEVABLE}  The standard error of the std is above a tenth of it, or unreliable: the tails are too "
            "heavy for this many replicates."
        )
    if BIASED in marks:
        lines.append(f"{BIASED}  Biased by construction: the mean differs from the exact one at any number of samples.")
    if isinstance(problem, PoissonGamma) and problem.family != "log_normal":
        effect = truncation_effect(problem, params)
        gradient = max((name for name in effect if name != "elbo"), key=lambda name: abs(effect[name]))
        lines.append(
            "q is a normal truncated at zero. From the untreated integral that moves the exact ELBO by "
            f"{effect['elbo']:.1g} and its gradient by at most {abs(effect[gradient]):.1g} ({gradient})."
        )
    lines.append(
        "All estimators draw from the same keys, and smaller numbers of samples may be the first of larger ones: rows "
        "are correlated. Times are those of the gradient in all parameters, averaged over one pass, and only "
        "indicative."
    )
    return lines
