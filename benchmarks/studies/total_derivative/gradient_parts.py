"""Moments of the parts of the gradient, measured over the same draws."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.studies.total_derivative.exact_gradient_parts import exact_moments
from benchmarks.studies.total_derivative.studied_gaussians import COEFFICIENTS, PARAMETERS, PROBLEM
from vae_jax import distributions
from vae_jax.estimators import ESTIMATORS
from vae_jax.estimators.objective_values import values_at
from vae_jax.statistics import gradient_replicates, mean_se, summarize
from vae_jax.typing import Distributions, Objective, Parameters, PRNGKey, Scalar


def _score_of_q(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The mean of log q at held samples: its gradient is the score, of the samples that `pathwise` draws."""
    samples = distributions.sample(q, key, num_samples)
    return values_at(lambda sample, q: distributions.log_prob(q, sample), samples, q).mean()


PARTS: Mapping[str, Any] = {
    "total": ESTIMATORS["pathwise"],
    "path": ESTIMATORS["sticking_the_landing"],
    "score": _score_of_q,
    "closed_form_entropy": ESTIMATORS["closed_form_entropy"],
}


def _loss(params: Parameters, key: PRNGKey, *, part: str) -> Scalar:
    return PROBLEM.estimate(params, key, 1, estimator=PARTS[part])


LOSSES = {part: partial(_loss, part=part) for part in PARTS}


def measured_rows(place: dict[str, Any], key: PRNGKey, num_replicates: int) -> list[dict[str, Any]]:
    """Moments of the parts at one q, for each parameter, over the same draws."""
    params = {name: jnp.float32(place[name]) for name in PARAMETERS}
    draws = {part: gradient_replicates(loss, params, key, num_replicates)[1] for part, loss in LOSSES.items()}
    rows = []
    for name in PARAMETERS:
        parts = {part: np.asarray(gradients[name], float) for part, gradients in draws.items()}
        row = place | {"parameter": name} | _moments_of_parts(parts) | exact_moments(place, name)
        if place["study"] == "coefficient":
            row["by_coefficient"] = _by_coefficient(parts)
        rows.append(row)
    return rows


def _by_coefficient(parts: Mapping[str, np.ndarray]) -> list[dict[str, float]]:
    return [
        {"coefficient": coefficient} | _mean_and_variance("estimate", parts["total"] + coefficient * parts["score"])
        for coefficient in COEFFICIENTS
    ]


def _moments_of_parts(parts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Means, variances, the covariance and the best coefficient, with standard errors."""
    total, path, score = (parts[part] for part in ("total", "path", "score"))
    moments: dict[str, Any] = {}
    for part, draws in parts.items():
        moments |= _mean_and_variance(part, draws)
    moments |= _covariance(total, score)
    # Rounding leaves a little of total = path - score, and of the total less the gradient with the closed-form entropy.
    moments["largest_gap"] = float(np.abs(total - (path - score)).max())
    moments["largest_gap_to_closed_form_entropy"] = float(np.abs(total - parts["closed_form_entropy"]).max())
    best = total + moments["best_coefficient"] * score
    return moments | _mean_and_variance("best", best)


def _mean_and_variance(part: str, draws: np.ndarray) -> dict[str, float]:
    statistics = summarize(draws.astype(np.float32), tail_size=0)
    fields = ("mean", "mean_se", "variance", "variance_se")
    return {f"{part}_{field}": float(getattr(statistics, field)) for field in fields}


def _covariance(total: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Cov(total, score) and c* = -Cov(total, score) / Var(score); their errors by the delta method."""
    total, score = total - total.mean(), score - score.mean()
    products = total * score
    best = -float(products.sum() / (score**2).sum())
    remainders = (total + best * score) * score
    return {
        "covariance": float(products.sum() / (len(total) - 1)),
        "covariance_se": float(mean_se(products)),
        "best_coefficient": best,
        "best_coefficient_se": float(mean_se(remainders) / (score**2).mean()),
    }
