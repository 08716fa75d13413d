"""The part of a fit's results that `fit` and `regress` share: its restarts, and how the ascent went."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console

from vae_jax.cli.number_formats import with_error
from vae_jax.files import write_csv
from vae_jax.inference.diagnostics import reliability_threshold
from vae_jax.inference.fit import Fit
from vae_jax.typing import Parameters

if TYPE_CHECKING:
    from vae_jax.plotting.elbo_ascent import ElboAscent

NUM_DRAWS = 200_000
"""Draws that moments without a closed form are computed from."""


def restart_params(fitted: Fit) -> list[Parameters]:
    """The parameters of every restart. A failed one has those of the best."""
    finite = np.isfinite(fitted.restart_elbos)
    numbers = [number if finite[number] else fitted.best_restart for number in range(len(finite))]
    return [jax.tree.map(lambda leaf, number=number: leaf[number], fitted.restart_params) for number in numbers]


def restart_spread(values: Sequence[np.ndarray]) -> np.ndarray:
    """The standard deviation over restarts; NaN for one alone."""
    if len(values) < 2:
        return np.full(np.shape(values[0]), math.nan)
    return np.asarray(np.std(values, axis=0, ddof=1))


def ascent_summary(fitted: Fit) -> dict[str, Any]:
    """The ELBO, its restarts and the verdicts, as they are saved."""
    return {
        "elbo": fitted.elbo,
        "elbo_se": fitted.elbo_se,
        "pareto_k": fitted.pareto_k,
        "num_steps": fitted.num_steps,
        "converged": fitted.converged,
        "rise": fitted.rise,
        "rise_se": fitted.rise_se,
        "restart_elbos": fitted.restart_elbos.tolist(),
        "restart_elbo_ses": fitted.restart_elbo_ses.tolist(),
        "best_restart": fitted.best_restart,
    }


def elbo_ascent(fitted: Fit, *, bound: float) -> "ElboAscent":
    """The ELBO by step, for a figure that shows log p(x) or an approximation of it as well."""
    from vae_jax.plotting.elbo_ascent import ElboAscent

    return ElboAscent(
        estimates=fitted.elbo_history,
        window_means=fitted.window_means,
        window_mean_ses=fitted.window_mean_ses,
        bound=bound,
        converged=fitted.converged,
    )


def save_history(folder: Path, fitted: Fit) -> None:
    """Writes the ELBO's mean in each window of steps as history.csv."""
    window = fitted.num_steps // len(fitted.window_means)
    windows = zip(fitted.window_means.tolist(), fitted.window_mean_ses.tolist(), strict=True)
    rows = [
        {"steps": (number + 1) * window, "elbo_mean": mean, "elbo_mean_se": error}
        for number, (mean, error) in enumerate(windows)
    ]
    write_csv(folder / "history.csv", rows)


def print_ascent(console: Console, fitted: Fit) -> None:
    """Prints the length of the ascent, and whether it converged to a posterior that weights can correct."""
    verdict = "converged" if fitted.converged else "not converged: the ELBO still rises by more than its noise"
    console.print(f"{fitted.num_steps:,} steps, {verdict}")
    rise = with_error(fitted.rise, fitted.rise_se)
    console.print(f"the ELBO's rise from the last window but one to the last: {rise} nats")
    threshold = reliability_threshold(10_000)
    meaning = "its weights can correct it" if fitted.pareto_k <= threshold else "its weights cannot correct it"
    console.print(f"Pareto k of the fit: {fitted.pareto_k:.2f} ({meaning}).")
    if len(fitted.restart_elbos) == 1:
        console.print("se ?: one run alone does not show it; raise --num-restarts.")
