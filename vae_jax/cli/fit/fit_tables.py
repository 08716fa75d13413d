"""The tables that `vae-jax fit` prints."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vae_jax.cli.fit.fit_summaries import Estimate, ProblemFit, RegressionFit
from vae_jax.inference.diagnostics import reliability_threshold
from vae_jax.inference.fit.fit import Fit

OVERDISPERSED = 1.5
"""Pearson's dispersion from which on a Poisson's intervals are too narrow to be left unremarked."""


def print_problem(result: ProblemFit, out: Path) -> None:
    """Moments of q beside the exact posterior's, and the gap."""
    console = Console(highlight=False)
    console.print(f"poisson-gamma, {result.family_name} family: q against the exact posterior", style="bold")
    table = _table("", "mean ± se", "exact", "std ± se", "exact")
    for row in result.rows():
        name = row["latent"]
        mean, std = result.moments[name]
        table.add_row(name, _shown(mean), f"{row['exact_mean']:.4f}", _shown(std), f"{row['exact_std']:.4f}")
    console.print(table)
    for latent in ("u", "v"):
        named = [(name, each) for name, each in result.parameters.items() if name.endswith(latent)]
        if named:
            console.print("q: " + ", ".join(f"{name} {_shown(each)}" for name, each in named))
    console.print(f"correlation of u and v: {result.correlation:.3f} under q, exactly {result.exact.correlation:.3f}")
    fitted, evidence = result.fitted, result.exact.log_evidence
    gap = Estimate(evidence - fitted.elbo, fitted.elbo_se)
    console.print(f"ELBO {_shown(Estimate(fitted.elbo, fitted.elbo_se))} nats, log p(x) {evidence:.4f}")
    console.print(f"gap, which is KL(q || posterior): {_shown(gap)} nats")
    if result.is_independent:
        console.print("Why: the counts fix the product of u and v, so these depend on each other.")
        console.print("Independent factors cannot. Each takes the width that it has when the other is")
        console.print("known, which is too narrow, and the means are those of a posterior so narrow.")
    _print_ascent(console, fitted)
    _print_end(console, fitted, out)


def print_regression(result: RegressionFit, out: Path) -> None:
    """Coefficients on both scales beside Laplace's."""
    console = Console(highlight=False)
    rows = len(result.regression.response)
    console.print(
        f"Poisson regression of {result.response} on {', '.join(result.regression.names)}: {rows:,} rows, "
        f"{result.family_name} family",
        style="bold",
    )
    table = _table("", "fit: mean, std", "Laplace: mean, std", "own scale: mean, std")
    for row in result.rows():
        pairs = (("mean", "std"), ("laplace_mean", "laplace_std"), ("own_scale_mean", "own_scale_std"))
        table.add_row(row["coefficient"], *(_posterior(row[mean], row[std]) for mean, std in pairs))
    console.print(table)
    console.print("log mean count = intercept + sum of coefficient x predictor. Predictors are")
    console.print("standardised (less their mean, over their std) but under own scale.")
    share = max(result.errors / result.moments.std)
    if math.isfinite(share):
        console.print(f"The fit's own error of a mean, by its restarts, is at most {share:.0%} of that std.")
    fitted = result.fitted
    console.print(
        f"ELBO {_shown(Estimate(fitted.elbo, fitted.elbo_se))} nats; Laplace's log evidence "
        f"{float(result.reference.log_evidence):.3f}"
    )
    if result.dispersion > OVERDISPERSED:
        console.print(f"Unreliable: the counts vary {result.dispersion:.2f} times as much as a Poisson's about")
        console.print(f"their means. The stds are too small by a factor of {math.sqrt(result.dispersion):.2f} or so.")
    _print_ascent(console, fitted)
    _print_end(console, fitted, out)


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    return table


def _print_ascent(console: Console, fitted: Fit) -> None:
    verdict = "converged" if fitted.converged else "not converged: the ELBO still rises by more than its noise"
    console.print(f"{fitted.num_steps:,} steps, {verdict}")
    rise = _shown(Estimate(fitted.rise, fitted.rise_se))
    console.print(f"the ELBO's rise from the last window but one to the last: {rise} nats")
    threshold = reliability_threshold(10_000)
    meaning = "its weights can correct it" if fitted.pareto_k <= threshold else "its weights cannot correct it"
    console.print(f"Pareto k of the fit: {fitted.pareto_k:.2f} ({meaning}).")


def _print_end(console: Console, fitted: Fit, out: Path) -> None:
    if len(fitted.restart_elbos) == 1:
        console.print("se ?: one run alone does not tell it; raise --num-restarts.")
    console.print(f"Saved in {out}: fit.json, fit.csv, history.csv, fit.png, config.json", markup=False)


def _posterior(mean: float, std: float) -> str:
    decimals = _decimals(std)
    return f"{mean:.{decimals}f}, {std:.{decimals}f}"


def _shown(estimate: Estimate) -> str:
    """A number to the digits that its error leaves."""
    if not math.isfinite(estimate.error):
        return f"{estimate.value:.4g} ± ?"
    decimals = _decimals(estimate.error)
    return f"{estimate.value:.{decimals}f} ± {estimate.error:.{decimals}f}"


def _decimals(error: float) -> int:
    """For two digits of the error."""
    return min(max(1 - math.floor(math.log10(error)), 0), 9) if error > 0 else 4
