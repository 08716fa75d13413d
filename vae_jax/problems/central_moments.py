"""Mean, variance and kurtosis of a random variable from its values and an expectation over them."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

Values: TypeAlias = Float[np.ndarray, "..."]
"""A random variable at the nodes of a quadrature rule, or at every outcome."""

Expectation: TypeAlias = Callable[[Values], float]

ROUNDING = 1e-11
"""Share of E|x| that a standard deviation may be by the rounding of the sums alone."""


class CentralMoments(NamedTuple):
    """Mean and central moments of a random variable."""

    mean: float
    variance: float
    kurtosis: float
    """E[(x - mean)^4] / variance^2; NaN of a constant."""

    @property
    def mean_square(self) -> float:
        """E[x^2]."""
        return self.variance + self.mean**2


MomentsOf: TypeAlias = Callable[[Values], CentralMoments]


def central_moments(values: Values, expectation: Expectation, *, rounding: float) -> CentralMoments:
    """Central moments of values under an expectation.

    Args:
        values: the random variable.
        expectation: the expectation of any function of the same nodes.
        rounding: a standard deviation up to this share of E|x| counts as zero.
    """
    mean = expectation(values)
    square = (values - mean) ** 2
    variance = expectation(square)
    if variance <= (rounding * max(abs(mean), expectation(np.abs(values)))) ** 2:
        return CentralMoments(mean, 0.0, float("nan"))
    return CentralMoments(mean, variance, expectation(square**2) / variance**2)


def weighted_moments(values: Values, weights: Values) -> CentralMoments:
    """Central moments of values that have these weights, which add up to one."""
    return central_moments(values, lambda x: float((weights * x).sum()), rounding=ROUNDING)


def difference_moments(one: CentralMoments, other: CentralMoments, factor: float) -> CentralMoments:
    """Central moments of factor (x - y) for independent x and y: their cumulants add up."""
    variance = one.variance + other.variance
    fourth_cumulant = (one.kurtosis - 3) * one.variance**2 + (other.kurtosis - 3) * other.variance**2
    kurtosis = 3 + fourth_cumulant / variance**2 if variance else float("nan")
    return CentralMoments(factor * (one.mean - other.mean), factor**2 * variance, kurtosis)
