"""The scores of a trained model: computed for a command, and printed."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from vae_jax.cli.number_formats import with_error
from vae_jax.cli.terminal_tables import add_numbers, add_words, plain_table
from vae_jax.inference.evidence.evidence_estimate import HIGHEST_SHAPE, SMALLEST_EFFECTIVE_SAMPLE_SIZE
from vae_jax.vae.config.experiment import CROSS_ENTROPY
from vae_jax.vae.results.score_summary import elbo_summary, scores_of

if TYPE_CHECKING:
    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.results.trained_model import TrainedModel

SCORE_SEED = 0
"""Seed of a score's draws: two models are scored with the same."""

CELLS_A_ROW = 3


def split_summary(trained: "TrainedModel", images: "ImageData", split: str, seed: int = SCORE_SEED) -> dict[str, Any]:
    """The ELBO of a split and what belongs to it, with what the numbers depend on."""
    import jax

    from vae_jax.vae.data.visible_images import visible_images

    experiment = trained.experiment
    pixels = visible_images(experiment, getattr(images, split), split)
    scores = scores_of(trained, pixels, jax.random.key(seed))
    return elbo_summary(scores, split, experiment.model.layers) | {
        "split": split,
        "likelihood": experiment.model.likelihood,
        "binarization": experiment.data.binarization,
        "binarization_seed": experiment.data.binarization_seed,
        "step": trained.step,
        "num_seeds": experiment.num_seeds,
    }


def print_summary(summary: Mapping[str, Any]) -> None:
    """The scores of a split, for a terminal of 80 columns."""
    console = Console(highlight=False)
    table = plain_table(gap=2)
    add_words(table, "nats per image")
    add_numbers(table, "mean ± se")
    table.add_column("")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    for line in _explanations(summary):
        console.print(line, markup=False)


def _rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    split = summary["split"]
    for label, term in ((f"{split} ELBO", "elbo"), ("  reconstruction", "reconstruction"), ("  KL", "kl")):
        name = f"{split}_{term}"
        yield label, with_error(summary[name], summary[f"{name}_se"]), _interval(summary.get(f"{name}_interval"))
    if "nll" in summary:
        label = f"{split} NLL, k = {summary['num_importance_samples']:,}"
        mark = "" if summary["nll_monte_carlo_reliable"] else "?"
        yield label, with_error(summary["nll"], summary["nll_se"]), f"{mark}{_interval(summary.get('nll_interval'))}"


def _interval(interval: Any) -> str:
    return "" if interval is None else f"95% from {interval[0]:.2f} to {interval[1]:.2f}"


def _explanations(summary: Mapping[str, Any]) -> Iterator[str]:
    if "nll" in summary:
        yield from _nll_explanations(summary)
    active = np.mean(summary["active_units"])
    by_layer = [
        f"{np.mean(units):g} in the {layer}" for layer, units in summary.get("active_units_by_layer", {}).items()
    ]
    layers = f": {', '.join(by_layer)}" if by_layer else ""
    yield f"Active units: {active:g} of {summary['num_latents']} (Var_x E[z|x] above 0.01){layers}."
    drawn = {
        "none": "as they are, grey",
        "threshold": "binarized at one half",
        "fixed": f"binarized once, seed {summary['binarization_seed']}",
        "stochastic": f"binarized once for scores (seed {summary['binarization_seed']}), afresh in training",
    }
    yield f"{summary['num_images']:,} {summary['split']} images, {drawn[summary['binarization']]}."
    if summary["num_seeds"] > 1:
        yield f"Means of {summary['num_seeds']} models; errors and intervals are between models."
    if summary["likelihood"] == CROSS_ENTROPY:
        yield "Grey pixels under a Bernoulli's cross-entropy are no likelihood: none of this bounds log p(x)."


def _nll_explanations(summary: Mapping[str, Any]) -> Iterator[str]:
    num_samples, mean, least = (
        summary[name] for name in ("num_importance_samples", "effective_sample_size", "effective_sample_size_min")
    )
    is_reliable = summary["nll_monte_carlo_reliable"]
    yield (
        "On average the estimate of the NLL is an upper bound. Its Monte Carlo error is "
        f"{_monte_carlo_error(summary)}, with an effective sample size of {mean:.1f} (least {least:.1f}) of "
        f"{num_samples:,}."
    )
    num_estimates = summary["num_images"] * summary["num_seeds"]
    num_reliable = round(num_estimates * summary["nll_share_reliable"])
    yield (
        f"{num_reliable:,} of the {num_estimates:,} images' estimates are reliable: effective sample size at least "
        f"{SMALLEST_EFFECTIVE_SAMPLE_SIZE}, Pareto k at most {HIGHEST_SHAPE:.2f}, weights hardly skewed for their "
        "number."
    )
    if not is_reliable:
        yield from _unreliable_nll(summary)


def _monte_carlo_error(summary: Mapping[str, Any]) -> str:
    error = summary["nll_monte_carlo_se"]
    if not math.isfinite(error):
        return "unknown"
    return f"{'' if summary['nll_monte_carlo_reliable'] else 'at least '}{error:.2g}"


def _unreliable_nll(summary: Mapping[str, Any]) -> Iterator[str]:
    """The facts that hold whatever the weights, and the way to a reliable error."""
    bias = summary["nll_monte_carlo_bias"]
    yield (
        "? The Monte Carlo error cannot be believed, and the estimate is too high on average"
        + (f", by about {bias:.2g} nats or more. " if math.isfinite(bias) else ". ")
        + f"The NLL of these images is below {summary['nll_upper_bound']:.2f} with probability 95%."
    )
    if (needed := summary["nll_samples_needed"]) is not None:
        yield f"A reliable error takes --num-importance-samples {needed:,} at least."


def print_kl_by_latent(summary: Mapping[str, Any]) -> None:
    """KL by latent, from the largest, with standard errors."""
    kl, error = (np.asarray(summary[name], float) for name in ("kl_by_latent", "kl_by_latent_se"))
    title = "KL by latent (nats)"
    if kl.ndim == 2:
        # A latent of one seed has nothing to do with that of another.
        kl, error, title = kl[0], error[0], f"{title} of the first of {len(kl)} models"
    table = plain_table(title, gap=2)
    table.show_header = False
    cells = [f"z{place + 1} {with_error(float(kl[place]), float(error[place]))}" for place in np.argsort(-kl)]
    for begin in range(0, len(cells), CELLS_A_ROW):
        table.add_row(*cells[begin : begin + CELLS_A_ROW])
    Console(highlight=False).print(table)
