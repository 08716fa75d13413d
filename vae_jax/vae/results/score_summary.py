"""A trained model's summary.json: every number with its error, its split and its binarization."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vae_jax.files import append_json_line, reason
from vae_jax.inference.evidence import EvidenceEstimate
from vae_jax.inference.evidence.evidence_estimate import SMALLEST_EFFECTIVE_SAMPLE_SIZE
from vae_jax.sealed_json import BrokenSeal, unsealed
from vae_jax.statistics import CONFIDENCE, interval_half_width, mean_se
from vae_jax.vae.results.trained_model import TrainedModel
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.training.image_scores import Scores, make_score
from vae_jax.vae.training.many_seeds import seed_keys

SCORED = ("split", "likelihood", "binarization", "binarization_seed", "num_images", "num_seeds", "step", "checkpoint")
"""Fields that say which model and which images scores are of."""

LARGEST_BIAS = 0.5
"""Standard errors that an estimate may be off by on average: its 95% interval still covers 92%."""

LIKELIHOOD = (
    "nll", "nll_se", "nll_interval", "nll_by_seed", "nll_monte_carlo_se", "nll_monte_carlo_bias",
    "nll_monte_carlo_reliable", "nll_upper_bound", "nll_samples_needed", "effective_sample_size",
    "effective_sample_size_min", "nll_pareto_k_median", "nll_pareto_k_max", "nll_share_reliable",
    "num_importance_samples", "evaluation",
)  # fmt: skip
"""Fields that only an evaluation fills in."""


def scores_of(trained: TrainedModel, images: np.ndarray, key: Any) -> Scores:
    """Scores of a model, or of each seed's, on images as the model sees them times 255 [N, X]."""
    num_seeds = trained.experiment.num_seeds
    score = make_score(trained.architecture, images, num_seeds=num_seeds)
    return jax.device_get(score(seed_keys(key, num_seeds), trained.params))


def elbo_summary(scores: Scores, split: str, layers: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The ELBO, its terms and the active units, named after the split.

    The standard error is over images for one model, and over seeds for several.

    Args:
        scores: of the images.
        split: that they are of.
        layers: how many latents each layer has, where there are several.
    """
    terms = {"elbo": scores.elbo, "reconstruction": scores.reconstruction, "kl": scores.kl}
    return {
        **{
            name: value
            for term, of_images in terms.items()
            for name, value in _with_error(f"{split}_{term}", np.asarray(of_images, float)).items()
        },
        "active_units": _plain(np.asarray(scores.active).sum(-1)),
        **({"active_units_by_layer": _active_by_layer(scores, layers)} if layers else {}),
        "num_latents": scores.kl_by_latent.shape[-1],
        "kl_by_latent": np.asarray(scores.kl_by_latent, float).tolist(),
        "kl_by_latent_se": np.asarray(scores.kl_by_latent_se, float).tolist(),
        "num_images": scores.elbo.shape[-1],
    }


def _active_by_layer(scores: Scores, layers: Mapping[str, int]) -> dict[str, Any]:
    ends = np.cumsum(list(layers.values()))[:-1]
    parts = np.split(np.asarray(scores.active), ends, axis=-1)
    return {name: _plain(part.sum(-1)) for name, part in zip(layers, parts, strict=True)}


def nll_summary(estimates: Sequence[EvidenceEstimate]) -> dict[str, Any]:
    """The negative log-likelihood, its errors and how far its estimates can be relied on.

    The estimate is too high on average, since the log of a mean is concave: by half the squared standard error of each
    image, to leading order (`nll_monte_carlo_bias`). The Monte Carlo error is reliable where that of every image is and
    the bias is at most half of it. Whatever the weights, the NLL of these images under these models is below
    `nll_upper_bound` with probability 95%: p(x) is estimated without bias and independently for each image, so that the
    product of the M estimates is above 20 times its expectation with probability 1/20 at most (Markov's inequality).

    Args:
        estimates: those of the same images under each seed's model.
    """
    of_seeds: Any = jax.tree.map(lambda *leaves: np.stack(leaves).astype(float), *estimates)
    log_evidence = of_seeds.log_evidence if len(estimates) > 1 else of_seeds.log_evidence[0]
    errors = of_seeds.log_evidence_se
    monte_carlo_se = float(np.sqrt((errors**2).sum(-1)).mean() / errors.shape[-1])
    bias = float((errors**2).mean() / 2)
    return {
        **_with_error("nll", -log_evidence),
        "nll_monte_carlo_se": monte_carlo_se,
        "nll_monte_carlo_bias": bias,
        "nll_monte_carlo_reliable": bool(of_seeds.reliable.all() and bias <= LARGEST_BIAS * monte_carlo_se),
        "nll_upper_bound": float(-log_evidence.mean() - math.log(1 - CONFIDENCE) / log_evidence.size),
        "nll_samples_needed": _samples_needed(of_seeds, bias, monte_carlo_se),
        "effective_sample_size": float(of_seeds.effective_sample_size.mean()),
        "effective_sample_size_min": float(of_seeds.effective_sample_size.min()),
        "nll_pareto_k_median": float(np.median(of_seeds.pareto_k)),
        "nll_pareto_k_max": float(of_seeds.pareto_k.max()),
        "nll_share_reliable": float(of_seeds.reliable.mean()),
    }


def _samples_needed(estimates: EvidenceEstimate, bias: float, monte_carlo_se: float) -> int | None:
    """Importance samples that a reliable Monte Carlo error takes at least; None where it is not known to take more.

    The effective sample size grows as the samples, the bias falls as one over them and the error as one over their
    root. Weights of a heavy tail take more. The number is rounded up to two digits.
    """
    num_samples = int(np.asarray(estimates.num_samples).flat[0])
    if not math.isfinite(monte_carlo_se) or not monte_carlo_se:
        return None
    of_bias = (bias / (LARGEST_BIAS * monte_carlo_se)) ** 2
    of_size = SMALLEST_EFFECTIVE_SAMPLE_SIZE / max(float(np.min(estimates.effective_sample_size)), 1.0)
    needed = math.ceil(num_samples * max(of_bias, of_size))
    two_digits = 10 ** max(len(str(needed)) - 2, 0)
    return math.ceil(needed / two_digits) * two_digits if needed > num_samples else None


def _with_error(name: str, of_images: np.ndarray) -> dict[str, Any]:
    """The mean over images [N] and its error; of several seeds [S, N], each seed's mean and the interval too."""
    if of_images.ndim == 1:
        return {name: float(of_images.mean()), f"{name}_se": float(mean_se(of_images))}
    means = of_images.mean(-1)
    half = interval_half_width(means)
    return {
        name: float(means.mean()),
        f"{name}_se": float(mean_se(means)),
        f"{name}_interval": [float(means.mean() - half), float(means.mean() + half)],
        f"{name}_by_seed": means.tolist(),
    }


def _plain(counts: np.ndarray | np.integer) -> Any:
    return int(counts) if counts.ndim == 0 else counts.tolist()


def likelihood_before(
    folder: RunFolder, summary: Mapping[str, Any], *, on_damage: Callable[[str], None]
) -> dict[str, Any]:
    """The likelihood that a run's summary of a split holds already, if it is of what this one's scores are of.

    Args:
        folder: of the run.
        summary: of a split, with the name of its checkpoint.
        on_damage: called with a line if the summary is not as it was written.
    """
    path = folder.summary_path(summary["split"])
    try:
        before = unsealed(path.read_bytes(), path)
    except FileNotFoundError:
        return {}
    except (OSError, BrokenSeal) as error:
        on_damage(f"{reason(error)}: a likelihood in it is computed anew or lost")
        return {}
    if "nll" not in before or any(before.get(field) != summary[field] for field in SCORED):
        return {}
    return {field: before[field] for field in LIKELIHOOD if field in before}


def add_evaluation(folder: RunFolder, summary: Mapping[str, Any]) -> None:
    """Adds a line to a run's evaluations.jsonl: scores that are not those of a whole split as the run trained on it."""
    append_json_line(folder.path / "evaluations.jsonl", summary)
