"""The tables of the log evidence, for a terminal of 80 columns."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vae_jax.cli.number_formats import with_error
from vae_jax.cli.terminal_tables import add_numbers, add_words, plain_table, print_saved
from vae_jax.inference.evidence import ESTIMATES
from vae_jax.vae.config.experiment import CROSS_ENTROPY

if TYPE_CHECKING:
    from vae_jax.evidence_budget import Budget

MOST_IMAGES = 20
"""Images that are shown one by one."""

UNRELIABLE = "?"

LONG = " sampling"
"""The end of names that a narrow column leaves out."""

ROUNDING = 1e-6
"""Relative error below which weights differ by rounding alone: they have no error."""


def print_by_latents(rows: Sequence[Mapping[str, Any]], budget: "Budget", out: Path, saved: Sequence[str]) -> None:
    """Prints every estimate and the exact log p(x), by the number of latents."""
    console = Console(highlight=False)
    console.print("log p(x) of linear-gaussian (nats)", style="bold")
    table = plain_table()
    add_numbers(table, "latents")
    add_words(table, "estimator")
    add_numbers(table, "estimate ± se", "exact", "ESS", "Pareto k")
    add_words(table, "")
    shown: set[int] = set()
    for row in rows:
        number = row["num_latents"]
        table.add_row(
            "" if number in shown else str(number),
            ESTIMATES[row["estimator"]].removesuffix(LONG),
            _figure(row),
            f"{row['exact']:.3f}",
            _size(row),
            _shape(row),
            _word(row),
        )
        shown.add(number)
    console.print(table)
    for line in _explanations(rows, budget.num_samples, budget.num_bound_samples):
        console.print(line, markup=False)
    console.print(
        f"Annealing: {_annealing(budget.num_chains, budget.num_temperatures, budget.start)}, with {_rate(rows)} of the "
        f"transitions accepted. The proposal is the best mean-field normal.",
        markup=False,
    )
    print_saved(console, out, *saved)


def print_by_image(
    rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], out: Path, saved: Sequence[str]
) -> None:
    """Prints every estimate of each image, and its reliability."""
    console = Console(highlight=False)
    images = sorted({row["image"] for row in rows})
    cells = {(row["image"], row["estimator"]): row for row in rows}
    table, sizes = plain_table(), plain_table()
    for each in (table, sizes):
        add_numbers(each, "image", *ESTIMATES.values())
    for image in images[:MOST_IMAGES]:
        of_image = [cells[image, name] for name in ESTIMATES]
        table.add_row(str(image), *(_marked(row) for row in of_image))
        sizes.add_row(str(image), *(f"{_size(row)}, {_shape(row)}" for row in of_image))
    table.add_row("mean", *(_mean([cells[image, name] for image in images]) for name in ESTIMATES), style="bold")
    console.print("log p(x) ± standard error (nats)", style="bold")
    console.print(table)
    console.print("effective sample size and Pareto k", style="bold")
    console.print(sizes)
    if len(images) > MOST_IMAGES:
        console.print(f"The first {MOST_IMAGES} of {len(images):,} images; all are in {saved[1]}.")
    for line in _explanations(rows, about["num_samples"], about["num_bound_samples"]):
        console.print(line, markup=False)
    annealing = _annealing(about["num_chains"], about["num_temperatures"], about["start"])
    console.print(
        f"Annealing: {annealing}, with {_rate(rows)} of the transitions accepted. "
        f"The proposal is the encoder's q(z|x). {_images(about)}",
        markup=False,
    )
    if about["likelihood"] == CROSS_ENTROPY:
        console.print("Grey pixels under a Bernoulli's cross-entropy are no likelihood: none of this is a log p(x).")
    print_saved(console, out, *saved)


def _images(about: Mapping[str, Any]) -> str:
    rule = about["binarization"]
    drawn = f", drawn once with seed {about['binarization_seed']}" if rule in ("stochastic", "fixed") else ""
    return (
        f"{about['num_images']:,} {about['split']} image{'s' * (about['num_images'] > 1)}, binarization {rule}{drawn}."
    )


def _size(row: Mapping[str, Any]) -> str:
    size = row["effective_sample_size"]
    return f"{size:,.1f}" if size < 100 else f"{size:,.0f}"


def _shape(row: Mapping[str, Any]) -> str:
    shape = row["pareto_k"]
    return "-" if math.isinf(shape) and shape < 0 else f"{shape:.2f}"


def _word(row: Mapping[str, Any]) -> str:
    if not row["reliable"]:
        return "unreliable"
    return "lower bound" if row["is_lower_bound"] else ""


def _figure(row: Mapping[str, Any]) -> str:
    value, error = row["log_evidence"], row["log_evidence_se"]
    return f"{value:.5f} ± 0" if error < ROUNDING * max(1, abs(value)) else with_error(value, error)


def _marked(row: Mapping[str, Any]) -> str:
    mark = "" if row["reliable"] else UNRELIABLE
    return _figure(row) + mark


def _mean(rows: Sequence[Mapping[str, Any]]) -> str:
    """Over images, with the Monte Carlo error alone."""
    value = math.fsum(row["log_evidence"] for row in rows) / len(rows)
    error = math.hypot(*(row["log_evidence_se"] for row in rows)) / len(rows)
    return with_error(value, error) + ("" if all(row["reliable"] for row in rows) else UNRELIABLE)


def _rate(rows: Sequence[Mapping[str, Any]]) -> str:
    rates = [row["acceptance_rate"] for row in rows if row["acceptance_rate"] is not None]
    return f"{math.fsum(rates) / len(rates):.0%}" if rates else "none"


def _annealing(num_chains: int, num_temperatures: int, start: str) -> str:
    return f"{num_chains:,} chains, {num_temperatures:,} temperatures from the {start}"


def _explanations(rows: Sequence[Mapping[str, Any]], num_samples: int, num_bound_samples: int) -> Iterator[str]:
    yield (
        f"Prior and importance sampling have {num_samples:,} samples. "
        f"The lower bound is the importance-weighted one of K = {num_bound_samples}, "
        f"below log p(x) on average; its error is over {num_samples // num_bound_samples:,} replicates and its ESS is "
        "of K."
    )
    if not all(row["reliable"] for row in rows):
        yield (
            f"Unreliable{'' if 'num_latents' in rows[0] else f' ({UNRELIABLE})'}: the weights' tail is too heavy, or "
            "they are too few or too skewed, to tell whether the error holds: it may be much too small, and the "
            "estimate too low. log p(x) lies above the estimate less 3.0 nats with probability 95% in any case. More "
            "samples help, and a proposal with wider tails."
        )
