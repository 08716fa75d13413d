"""The table of a variance study, for a terminal of 80 columns."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vae_jax.problems import PoissonGamma
from vae_jax.problems.poisson_gamma_exact import truncation_effect
from vae_jax.variance import Row, VarianceStudy

MAX_DECIMALS = 8

DIVERGENT, UNBELIEVABLE, NONFINITE = "∞", "?", "N"


def print_study(study: VarianceStudy, problem: PoissonGamma, params: dict[str, float], out: Path) -> None:
    """Prints every estimate beside its exact value, and explains what is marked."""
    console = Console()
    first = study.estimators[0]
    console.print(_table("ELBO (the same under every estimator)", study, first, ("elbo",)))
    for estimator in study.estimators:
        console.print(_table(f"gradient of the ELBO: {estimator}", study, estimator, study.parameters[1:]))
    for line in _explanations(study, problem, params):
        console.print(line, highlight=False, soft_wrap=False)
    console.print(f"Saved in {out}: variance.json, variance.csv, replicates.png, std.png, config.json", highlight=False)


def _table(title: str, study: VarianceStudy, estimator: str, parameters: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for header in ("samples", "mean ± se", "exact", "std ± se", "exact"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for parameter in parameters:
        for size in study.num_samples:
            row = study.row(estimator, parameter, size)
            table.add_row(
                parameter if size == study.num_samples[0] else "",
                f"{size:,}",
                with_error(row.mean, row.mean_se),
                _exact(row.exact_mean, row.exact_mean_status),
                with_error(row.std, row.std_se),
                _exact(row.exact_std, row.exact_std_status),
                _mark(row),
            )
        table.add_section()
    return table


def with_error(value: float, error: float) -> str:
    """A value and its standard error, to two digits of the error."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:g} ± {error:g}"
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 6
    if decimals > MAX_DECIMALS:
        return f"{value:.6g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _exact(value: float | None, status: str) -> str:
    return {"infinite": "∞"}.get(status, status) if value is None else f"{value:#.6g}"


def _mark(row: Row) -> str:
    if row.num_nonfinite:
        return NONFINITE
    if {row.exact_mean_status, row.exact_std_status} & {"infinite", "undefined"}:
        return DIVERGENT
    return "" if row.reliable else UNBELIEVABLE


def _explanations(study: VarianceStudy, problem: PoissonGamma, params: dict[str, float]) -> list[str]:
    marks = {_mark(row) for row in study.rows}
    lines = []
    if NONFINITE in marks:
        worst = max(row.num_nonfinite for row in study.rows)
        lines.append(f"{NONFINITE}  Up to {worst:,} replicates of a cell were NaN or infinite: its moments are too.")
    if DIVERGENT in marks:
        lines.append(
            f"{DIVERGENT}  q has density at zero, where this gradient grows like 1/z: its mean does not exist and its "
            "variance is infinite, however steady the numbers look. --family log_normal has neither trouble."
        )
    if UNBELIEVABLE in marks:
        lines.append(
            f"{UNBELIEVABLE}  The standard error of the std is over a tenth of it, or not to be believed: the tails "
            "are too heavy for this many replicates."
        )
    if problem.family == "normal":
        effect = truncation_effect(problem, params)
        gradient = max((name for name in effect if name != "elbo"), key=lambda name: abs(effect[name]))
        lines.append(
            "q is a normal truncated at zero. From the untreated integral that moves the exact ELBO by "
            f"{effect['elbo']:.1g} and its gradient by at most {abs(effect[gradient]):.1g} ({gradient})."
        )
    lines.append(
        "A replicate's smaller numbers of samples are the first of its largest, and all estimators share them: rows "
        "are correlated."
    )
    return lines
