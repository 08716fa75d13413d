"""Exact moments of averages against the enumeration of every outcome of their samples."""

import itertools
import math

import numpy as np
import pytest

from vae_jax.problems.central_moments import weighted_moments
from vae_jax.problems.exact_moments import averaged, leave_one_out_moments, over_pairs

PROBABILITIES = np.array([0.2, 0.5, 0.3])
COSTS = np.array([1.0, -2.0, 4.0])
SCORES = np.array([1.5, 0.3, -1.5])
"""Scores have mean zero, as the derivative of a log density is."""


def moments_of(values):
    return weighted_moments(values, PROBABILITIES)


def enumerated(estimate, num_samples):
    """Mean, standard deviation and kurtosis of an estimate from the outcomes of independent samples."""
    outcomes = list(itertools.product(range(len(COSTS)), repeat=num_samples))
    weights = np.array([math.prod(PROBABILITIES[list(outcome)]) for outcome in outcomes])
    moments = weighted_moments(np.array([estimate(list(outcome)) for outcome in outcomes]), weights)
    return moments.mean, math.sqrt(moments.variance), moments.kurtosis


def leave_one_out_gradient(outcome):
    costs, scores = COSTS[outcome], SCORES[outcome]
    baselines = (costs.sum() - costs) / (len(costs) - 1)
    return ((costs - baselines) * scores).mean()


@pytest.mark.parametrize("num_samples", [2, 3, 6])
def test_leave_one_out_moments_are_those_of_every_outcome(num_samples):
    found = leave_one_out_moments(COSTS, SCORES, moments_of)(num_samples)
    mean, std, _ = enumerated(leave_one_out_gradient, num_samples)
    assert found.mean.value == pytest.approx(mean, rel=1e-12)
    assert found.std.value == pytest.approx(std, rel=1e-12)


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_moments_of_an_average_are_those_of_every_outcome(num_samples):
    found = averaged(moments_of(COSTS))(num_samples)
    expected = enumerated(lambda outcome: COSTS[outcome].mean(), num_samples)
    assert [exact.value for exact in found] == pytest.approx(expected, rel=1e-12)
    assert over_pairs(averaged(moments_of(COSTS)))(2 * num_samples) == found
