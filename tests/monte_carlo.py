"""Judging Monte Carlo means: the whole suite raises a false alarm once in a million runs.

A check is |mean - exact| < Z standard errors. Z is the two-sided Gaussian quantile of the family-wise rate over the
largest number of single comparisons that the suite makes (Bonferroni). A check has power only where the standard error
is small, so each states the largest bias it would miss.
"""

import numpy as np
from scipy.stats import norm

FAMILY_WISE_ERROR = 1e-6
MAX_COMPARISONS = 5_000
Z = norm.isf(FAMILY_WISE_ERROR / MAX_COMPARISONS / 2)

USUAL = ("pathwise", "sticking_the_landing", "score_function", "score_function+leave_one_out")
"""Estimators that draw alike and whose value is the plain average of the objective. The registry's test has them all.
"""


def assert_unbiased(mean, standard_error, exact, *, resolution):
    """Fails if the mean is off, or if a bias of `resolution` would have gone unnoticed."""
    mean, standard_error, exact = (np.asarray(x, float) for x in (mean, standard_error, exact))
    assert np.all(2 * Z * standard_error < resolution), f"no power: standard error {standard_error}"
    assert np.all(np.abs(mean - exact) < Z * standard_error), f"z = {(mean - exact) / standard_error}"


def is_biased(mean, standard_error, exact):
    """Whether any element lies so far off that the suite would fail: what a negative control has to show."""
    return bool(np.any(np.abs(np.asarray(mean) - exact) > Z * np.asarray(standard_error)))
