"""Distances of measured variances from the exact ones, in standard errors."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.studies.estimator_atlas.estimator_variances import SAMPLES_OF_ESTIMATE, VariancePoint


def compared(points: Sequence[VariancePoint]) -> dict[str, Any]:
    """The z-scores of measured variances, and how large these are where the exact ones are 0."""
    varying = [point for point in points if point.exact_variance]
    zeros = [point.variance for point in points if not point.exact_variance]
    known = [
        (point.variance - point.exact_variance) / point.exact_variance_se
        for point in varying
        if point.exact_variance_se is not None
    ]
    by_estimator = {
        name: deviations(_own_z_scores([point for point in varying if point.estimator == name]))
        for name in SAMPLES_OF_ESTIMATE
        if any(point.estimator == name for point in varying)
    }
    return {
        "measured_standard_errors": deviations(_own_z_scores(varying)),
        "exact_standard_errors": deviations(known),
        "by_estimator": by_estimator,
        "num_exact_zeros": len(zeros),
        "largest_variance_of_exact_zeros": max(zeros, default=0.0),
    }


def _own_z_scores(points: Sequence[VariancePoint]) -> list[float]:
    return [(point.variance - point.exact_variance) / point.variance_se for point in points]


def deviations(z_scores: Sequence[float]) -> dict[str, float]:
    """The sizes of z-scores, and those that as many independent normal ones would have."""
    sizes = np.abs(z_scores)
    # The median of the largest of n.
    likely_max = norm.ppf((1 + 0.5 ** (1 / len(sizes))) / 2)
    return {
        "num_points": len(sizes),
        "num_within_1": int((sizes < 1).sum()),
        "num_within_2": int((sizes < 2).sum()),
        "mean_abs_z": float(sizes.mean()),
        "max_abs_z": float(sizes.max()),
        "expected_mean_abs_z": math.sqrt(2 / math.pi),
        "median_max_abs_z": float(likely_max),
    }
