"""The table that `vae-jax fit` prints."""

from pathlib import Path

from rich.console import Console

from vae_jax.cli.ascent_results import print_ascent
from vae_jax.cli.fit.problem_fit import LATENTS, ProblemFit
from vae_jax.cli.number_formats import with_error
from vae_jax.cli.terminal_tables import add_numbers, add_words, plain_table, print_saved


def print_problem_fit(result: ProblemFit, out: Path) -> None:
    """Prints the moments of q and of the exact posterior, and the gap between ELBO and evidence."""
    console = Console(highlight=False)
    console.print(f"poisson-gamma, {result.family_name} family: q against the exact posterior", style="bold")
    table = plain_table(gap=2)
    add_words(table, "")
    add_numbers(table, "mean ± se", "exact", "std ± se", "exact")
    for row in result.rows():
        mean, std = (with_error(row[name], row[f"{name}_se"]) for name in ("mean", "std"))
        table.add_row(row["latent"], mean, f"{row['exact_mean']:.4f}", std, f"{row['exact_std']:.4f}")
    console.print(table)
    for latent in LATENTS:
        named = [(name, each) for name, each in result.parameters.items() if name.endswith(latent)]
        if named:
            console.print("q: " + ", ".join(f"{name} {with_error(*each)}" for name, each in named))
    console.print(f"correlation of u and v: {result.correlation:.3f} under q, exactly {result.exact.correlation:.3f}")
    fitted, evidence = result.fitted, result.exact.log_evidence
    console.print(f"ELBO {with_error(fitted.elbo, fitted.elbo_se)} nats, log p(x) {evidence:.4f}")
    gap = with_error(evidence - fitted.elbo, fitted.elbo_se)
    console.print(f"gap, which is KL(q || posterior): {gap} nats")
    if result.is_independent:
        console.print("Why: the counts fix the product of u and v, so these depend on each other.")
        console.print("Independent factors cannot. Each takes the width that it has when the other is")
        console.print("known, which is too narrow, and the means are those of a posterior so narrow.")
    print_ascent(console, fitted)
    print_saved(console, out, "fit.json", "fit.csv", "history.csv", "fit.png", "config.json")
