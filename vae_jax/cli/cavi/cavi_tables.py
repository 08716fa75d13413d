"""The tables of `vae-jax cavi`, for a terminal of 80 columns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vae_jax.cli.cavi.cavi_results import CaviResults
from vae_jax.cli.number_formats import with_error
from vae_jax.cli.terminal_tables import OVERDISPERSED, WIDTH, add_numbers, plain_table
from vae_jax.inference.cavi import Recovery, effective_num_components

MOST_COLUMNS = 2
"""Positions that have columns of their own; more stand below each other."""


def print_results(results: CaviResults, out: Path) -> None:
    """Prints the bounds by number of components, the best number's components, and how to read them."""
    console = Console(width=WIDTH, highlight=False)
    console.print(f"{len(results.positions):,} events: bounds (nats) by number of components", style="bold")
    console.print(_of_numbers(results))
    for line in _on_numbers(results):
        console.print(line)
    console.print()
    console.print(f"Components at K = {len(results.components)}", style="bold")
    console.print(_of_components(results))
    for line in _on_components(results):
        console.print(line)
    if results.recovery is not None:
        console.print()
        console.print("The truth, and the fitted components that hold its events", style="bold")
        console.print(_of_truth(results, results.recovery))
        for line in _on_truth(results.recovery):
            console.print(line)
    console.print(
        f"Saved in {out}: cavi.json, cavi.csv, components.csv, responsibilities.npz, config.json and figures",
        markup=False,
    )


def _table(*headers: str) -> Table:
    table = plain_table()
    add_numbers(table, *headers)
    return table


def _of_numbers(results: CaviResults) -> Table:
    best = results.selection.best
    table = _table(
        "K", "best ELBO", "+ log K!", "at best", "sweeps", "effective", "",
    )  # fmt: skip
    for each in results.selection.candidates:
        table.add_row(
            str(each.num_components),
            f"{each.elbo:.2f}",
            f"{each.score:.2f}",
            f"{each.num_at_best} of {len(each.ascent.restart_elbos)}",
            str(int(each.ascent.num_steps)) + ("" if each.ascent.converged else " N"),
            f"{effective_num_components(each.model, each.ascent.state):.2f}",
            "<- highest" if each is best and len(results.selection.candidates) > 1 else "",
        )
    return table


def _on_numbers(results: CaviResults) -> Iterator[str]:
    selection = results.selection
    best = selection.best
    yield "at best: restarts within 0.1 nats of the best. effective: exp of the entropy of"
    yield "the components' shares of the events."
    if len(set(np.asarray(best.model.weights.by_component).tolist())) > 1:
        yield "The given weights differ: only orders of components of equal weight are counted in log K!."
    coinciding = [str(each.num_components) for each in selection.candidates if each.num_empty > 1]
    if coinciding:
        yield f"Empty components coincide, so log K! is reduced by log E! for E empty ones: K = {_listed(coinciding)}."
    unfinished = [str(each.num_components) for each in selection.candidates if not each.ascent.converged]
    if unfinished:
        yield (
            f"N  Not converged after {results.max_steps} sweeps: K = {_listed(unfinished)}. "
            "Their bounds hold but may rise: raise --max-steps."
        )
    several = [each for each in selection.candidates if len(each.ascent.restart_elbos) > 1]
    once = [str(each.num_components) for each in several if each.num_at_best == 1]
    if once:
        yield f"Reached by one restart only, and perhaps not the highest: K = {_listed(once)}."
    if selection.ends_at_best:
        yield f"The range ends at its best, K = {best.num_components}: raise it. The bound may rise further."


def _listed(numbers: list[str]) -> str:
    return ", ".join(numbers)


def _of_components(results: CaviResults) -> Table:
    names = results.position_names
    places = names if len(names) <= MOST_COLUMNS else ("place",)
    headers = ["", "events", "weight ± std", *(f"{name[:12]} ± std" for name in places)]
    if results.counts is not None:
        headers += ["rate ± std", "var/mean"]
    table = _table(*headers)
    for each in results.components:
        row = [str(each.number), f"{each.num_events:.1f}", _plus(each.weight, each.weight_std)]
        if each.is_empty:
            table.add_row(*row, *("empty" for _ in places), *("" for _ in headers[3 + len(places) :]))
            continue
        texts = [_plus(*pair) for pair in zip(each.loc, each.loc_std, strict=True)]
        rate = [] if each.rate is None else [_plus(each.rate, each.rate_std or 0.0), f"{each.dispersion:.2f}"]
        table.add_row(*row, *_stacked([*texts, ""], names)[:-1], *rate)
    return table


def _plus(value: float, std: float) -> str:
    return with_error(value, std) if std > 0 else f"{value:.4g}"


def _on_components(results: CaviResults) -> Iterator[str]:
    yield "± is the standard deviation under q, which is too small where components overlap."
    num_empty = sum(each.is_empty for each in results.components)
    if num_empty:
        yield f"{num_empty} empty: at the prior."
    if results.counts is None:
        return
    model = results.selection.best.model
    spread = float(model.position_precision) ** -0.5
    yield f"Every component is round and has the given spread of {spread:.3g} (1/sqrt(tau))."
    broad = [each for each in results.components if not each.is_empty and (each.dispersion or 0) > OVERDISPERSED]
    if broad:
        yield (
            f"In {len(broad)} the counts vary more than a Poisson's (var/mean above {OVERDISPERSED}). Long shapes and "
            "such counts need several components each: K then counts pieces, not clusters."
        )


def _of_truth(results: CaviResults, found: Recovery) -> Table:
    """Two rows for each true component, the second of the fitted one."""
    names = results.position_names
    places = names if len(names) <= MOST_COLUMNS else ("place",)
    headers = ("", "events", *(f"{name[:12]} ± std" for name in places), "rate ± std")
    table = _table(*headers)
    labels = np.asarray(found.truth.labels)
    for k, match in enumerate(found.matches):
        loc = tuple(np.asarray(found.truth.loc[k], np.float64).tolist())
        true = [f"{value:.4g}" for value in (*loc, float(found.truth.rate[k]))]
        table.add_row(f"true {k + 1}", str(int((labels == k).sum())), *_stacked(true, names))
        if match < 0:
            table.add_row("none", *("" for _ in headers[1:]))
            continue
        fitted = results.components[match]
        inside = (*found.loc_inside[k].tolist(), bool(found.rate_inside[k]))
        values = (*fitted.loc, fitted.rate or 0.0)
        stds = (*fitted.loc_std, fitted.rate_std or 0.0)
        texts = [
            _plus(value, std) + (" " if held else "!") for value, std, held in zip(values, stds, inside, strict=True)
        ]
        table.add_row(f"fitted {fitted.number}", f"{fitted.num_events:.1f}", *_stacked(texts, names))
    return table


def _stacked(texts: list[str], names: tuple[str, ...]) -> list[str]:
    """The places, in one cell if there are many, and the rate."""
    *places, rate = texts
    if len(places) <= MOST_COLUMNS:
        return texts
    return ["\n".join(f"{name[:12]} {text}" for name, text in zip(names, places, strict=True)), rate]


def _on_truth(found: Recovery) -> Iterator[str]:
    yield (
        f"{found.num_inside} of {found.num_intervals} intervals of matched components hold the truth; 95% should. "
        "! marks the others."
    )
    yield (
        f"{found.share_right:.1%} of the events are labelled right; the true parameters themselves give "
        f"{found.share_attainable:.1%}."
    )
