"""Exact moments of the parts of the gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.studies.total_derivative.studied_gaussians import PARAMETERS, PROBLEM
from vae_jax.problems.quadrature import noise_moments


def exact_moments(params: Mapping[str, Any], name: str) -> dict[str, float]:
    """Moments of the gradient in one parameter. The problem itself gives those of the total and of the path."""
    q = {parameter: float(params[parameter]) for parameter in PARAMETERS}
    exact: dict[str, float] = {}
    for part, estimator in (("total", "pathwise"), ("path", "sticking_the_landing")):
        moments = PROBLEM.exact(q, estimator)(1)[name]
        exact |= {f"exact_{part}_mean": _value(moments.mean), f"exact_{part}_variance": _value(moments.std) ** 2}
    score = noise_moments(lambda noise: (noise if name == "loc" else noise**2 - 1) / q["scale"])
    # Var(path) = Var(total + score).
    covariance = (exact["exact_path_variance"] - exact["exact_total_variance"] - score.variance) / 2
    best = -covariance / score.variance
    return exact | {
        "exact_score_mean": 0.0,
        "exact_score_variance": score.variance,
        "exact_covariance": covariance,
        "exact_best_coefficient": best,
        "exact_best_variance": exact["exact_total_variance"] + best * covariance,
    }


def _value(exact: Any) -> float:
    return float(exact.value)


def exact_variance(params: Mapping[str, Any], name: str, coefficients: np.ndarray) -> np.ndarray:
    """Var(total + c score)."""
    exact = exact_moments(params, name)
    linear = exact["exact_total_variance"] + 2 * coefficients * exact["exact_covariance"]
    return linear + coefficients**2 * exact["exact_score_variance"]
