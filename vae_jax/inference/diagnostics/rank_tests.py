"""Tests of the probabilities that a calibrated posterior gives to the truth."""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import erfc
from scipy.stats import binom

FAR_TAIL = 8.0
"""The Anderson-Darling statistic up to which Marsaglia's polynomial is used."""


def symmetry_p_value(probabilities: Float[np.ndarray, " R"]) -> float:
    """The p-value of a distribution of the probabilities that is symmetric about one half, in whatever form.

    The statistic is the largest of |F(x) + F(1 - x) - 1|, the Kolmogorov-Smirnov distance of the probabilities p from
    1 - p. Its distribution is that of the largest excursion of a fair coin's walk, so that the test is exact for any
    number of probabilities. The two-sample Kolmogorov-Smirnov test of p against 1 - p is not: the two samples depend on
    each other.

    Reference: Butler (1969), "A test for symmetry using the sample distribution function".
    """
    if not np.isfinite(probabilities).all():
        return math.nan
    deviations = probabilities - 0.5
    signs = np.sign(deviations[np.argsort(-np.abs(deviations))])
    return _excursion_probability(int(np.abs(np.cumsum(signs)).max()), len(signs))


def _excursion_probability(distance: int, num_steps: int) -> float:
    """The probability that a fair walk is ever so far from its start: the reflection principle between two barriers."""
    if distance < 1:
        return 1.0
    barriers = distance * np.arange(1, num_steps // distance + 2, 2)
    # The walk ends at 2 heads - steps.
    at_least = binom.sf(np.ceil((num_steps + barriers) / 2) - 1, num_steps, 0.5)
    beyond = binom.sf(np.floor((num_steps + barriers) / 2), num_steps, 0.5)
    turns = (-1.0) ** np.arange(len(barriers))
    return float(np.clip(2 * np.sum(turns * (at_least + beyond)), 0, 1))


def uniformity_p_value(probabilities: Float[np.ndarray, " R"]) -> float:
    """The p-value of probabilities that are uniform, by the Anderson-Darling test.

    It weighs the ends, where a posterior that is too narrow or too wide shows. Its p-value is the asymptotic one, which
    is right within a tenth of itself from 20 probabilities on and down to 0.001.

    Reference: Anderson & Darling (1954); Marsaglia & Marsaglia (2004), "Evaluating the Anderson-Darling distribution";
    Zolotarev (1961) for the far tail.
    """
    if not np.isfinite(probabilities).all():
        return math.nan
    size = len(probabilities)
    ordered = np.sort(probabilities)
    odd = 2 * np.arange(1, size + 1) - 1
    statistic = -size - np.mean(odd * (np.log(ordered) + np.log1p(-ordered[::-1])))
    return anderson_darling_survival(float(statistic))


def anderson_darling_survival(statistic: float) -> float:
    """The probability of a larger Anderson-Darling statistic, for many uniform numbers."""
    if statistic > FAR_TAIL:
        return math.sqrt(3) * float(erfc(math.sqrt(statistic)))
    if statistic >= 2:
        polynomial = np.polyval([-0.0003146, 0.008056, -0.082433, 0.43424, -2.30695, 1.0776], statistic)
        return float(-np.expm1(-np.exp(polynomial)))
    polynomial = np.polyval([0.00168691, -0.011672, 0.0347962, -0.0649821, 0.247105, 2.00012], statistic)
    return float(1 - math.exp(-1.2337141 / statistic) * polynomial / math.sqrt(statistic))


def holm_adjusted(p_values: Float[np.ndarray, " H"]) -> Float[np.ndarray, " H"]:
    """p-values of many hypotheses, each to be compared with the chance of rejecting any true one at all.

    NaN stays NaN and counts as a hypothesis.

    Reference: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted
