"""The table that `vae-jax regress` prints."""

import math
from pathlib import Path

from rich.console import Console

from vae_jax.cli.ascent_results import print_ascent
from vae_jax.cli.number_formats import with_error, with_std
from vae_jax.cli.regress.regression_fit import RegressionFit
from vae_jax.cli.terminal_tables import OVERDISPERSED, add_numbers, add_words, plain_table, print_saved


def print_regression(result: RegressionFit, out: Path) -> None:
    """Prints the coefficients on both scales, and Laplace's."""
    console = Console(highlight=False)
    rows = len(result.regression.response)
    console.print(
        f"Poisson regression of {result.response} on {', '.join(result.regression.names)}: {rows:,} rows, "
        f"{result.family_name} family",
        style="bold",
    )
    table = plain_table(gap=2)
    add_words(table, "")
    sources = {"fit": "", "Laplace": "laplace_", "own scale": "own_scale_"}
    if result.reference.failure:
        del sources["Laplace"]
    add_numbers(table, *(f"{name}: mean, std" for name in sources))
    for row in result.rows():
        pairs = ((row[f"{source}mean"], row[f"{source}std"]) for source in sources.values())
        table.add_row(row["coefficient"], *(with_std(mean, std) for mean, std in pairs))
    console.print(table)
    console.print("log mean count = intercept + sum of coefficient x predictor. Predictors are")
    console.print("standardised (less their mean, over their std) except under own scale.")
    share = max(result.moments.mean_se / result.moments.std)
    if math.isfinite(share):
        console.print(f"The fit's own error of a mean, by its restarts, is at most {share:.0%} of that std.")
    fitted = result.fitted
    elbo = f"ELBO {with_error(fitted.elbo, fitted.elbo_se)} nats"
    if result.reference.failure:
        console.print(elbo)
        console.print(f"No comparison with Laplace's approximation: {result.reference.failure}")
    else:
        console.print(f"{elbo}; Laplace's log evidence {result.reference.log_evidence:.3f}")
    if result.dispersion > OVERDISPERSED:
        console.print(f"Unreliable: the counts vary {result.dispersion:.2f} times as much as a Poisson's about")
        console.print(f"their means. The stds are too small by a factor of {math.sqrt(result.dispersion):.2f} or so.")
    print_ascent(console, fitted)
    print_saved(console, out, "regress.json", "regress.csv", "history.csv", "regress.png", "config.json")
