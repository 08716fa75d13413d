"""The ratio of two variances: its interval holds as often as it says, and common random numbers narrow it."""

import math

import jax
import numpy as np
import pytest
from scipy.stats import binom

from vae_jax.problems import SquareCost
from vae_jax.studies.estimator_comparison import compare, variance_ratio


def pairs(generator, correlation, number=500):
    """Gaussian pairs of which the first has four times the variance."""
    shared, own = generator.standard_normal((2, number))
    second = correlation * shared + np.sqrt(1 - correlation**2) * own
    return 2 * shared, second


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_holds_the_ratio_as_often_as_it_says(correlation):
    generator = np.random.default_rng(0)
    found = [variance_ratio(*pairs(generator, correlation), confidence=0.9) for _ in range(2_000)]
    held = sum(ratio.lower < 4 < ratio.upper for ratio in found)
    # Of 2,000 intervals; the linearisation may cost a percent.
    assert binom.ppf(1e-7, 2_000, 0.885) < held < binom.isf(1e-7, 2_000, 0.905)
    assert np.mean([ratio.correlation for ratio in found]) == pytest.approx(correlation, abs=0.01)


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(1)
    apart, together = (variance_ratio(*pairs(generator, correlation)) for correlation in (0.0, 0.95))
    assert np.log(together.upper / together.lower) < 0.6 * np.log(apart.upper / apart.lower)


def test_the_same_estimates_have_a_ratio_of_one_and_no_doubt():
    values = np.random.default_rng(2).standard_normal(100)
    assert variance_ratio(values, values) == pytest.approx((1, 1, 1, 1, True))


def test_what_has_no_variance_or_is_not_finite_is_said():
    values = np.random.default_rng(3).standard_normal(100)
    assert variance_ratio(values, np.ones(100)).ratio == np.inf
    assert variance_ratio(np.ones(100), values).ratio == 0
    assert np.isnan(variance_ratio(np.ones(100), values).upper)
    assert not variance_ratio(np.ones(100), values).reliable
    assert np.isnan(variance_ratio(np.append(values[1:], np.nan), values).ratio)


def simulated(name, draw, number):
    """Pairs and the ratio of their variances."""
    normal = draw.standard_normal(number)
    return {
        "normal": (draw.standard_normal(number), normal, 1.0),
        "uniform": (draw.uniform(size=number), normal, 1 / 12),
        "laplace": (draw.laplace(size=number), draw.laplace(size=number), 1.0),
        "exponential": (draw.exponential(size=number), draw.exponential(size=number), 1.0),
        "lognormal": (draw.lognormal(size=number), normal, math.e * (math.e - 1)),
        "t3": (draw.standard_t(3, number), normal, 3.0),
    }[name]


def shares(name, number, num_runs):
    """The share of reliable intervals, and the share of those that cover."""
    draw = np.random.default_rng(number)
    covers, reliable = [], []
    for _ in range(num_runs):
        first, second, exact = simulated(name, draw, number)
        found = variance_ratio(first, second)
        covers.append(found.lower < exact < found.upper)
        reliable.append(found.reliable)
    covers, reliable = np.array(covers), np.array(reliable)
    return reliable.mean(), covers[reliable].mean() if reliable.any() else 1.0


def test_intervals_of_heavy_tails_are_not_reliable():
    assert shares("normal", 1_000, 100)[0] > 0.95
    assert shares("lognormal", 1_000, 100)[0] < 0.05
    assert shares("t3", 1_000, 100)[0] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("number", [100, 1_000, 10_000])
@pytest.mark.parametrize("name", ["normal", "uniform", "laplace", "exponential", "lognormal", "t3"])
def test_reliable_intervals_cover(name, number):
    num_runs = 2_000 if number < 10_000 else 500
    share, covered = shares(name, number, num_runs)
    if share > 0.02:
        assert covered > 0.9 - 3 * math.sqrt(0.09 / (share * num_runs))


def test_fewer_than_three_replicates_are_refused():
    with pytest.raises(ValueError, match="replicates must be at least 3, got 2"):
        variance_ratio(np.ones(2), np.ones(2))


def test_compared_estimators_draw_alike():
    comparison = compare(
        SquareCost(), {"loc": 1.0, "scale": 1.0}, jax.random.key(0), 1_000, first="score_function",
        second="score_function+leave_one_out", num_samples=(10,),
    )  # fmt: skip
    value, loc, _ = comparison.rows
    assert (value.parameter, value.variance_ratio, value.mean_difference) == ("cost", pytest.approx(1), 0)
    assert loc.correlation > 0.5
    assert loc.variance_ratio_lower < loc.exact_variance_ratio < loc.variance_ratio_upper


def test_an_estimator_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="the estimators must be two, got pathwise twice"):
        compare(
            SquareCost(), {"loc": 1.0, "scale": 1.0}, jax.random.key(0), 10, first="pathwise", second="pathwise",
            num_samples=(5,),
        )  # fmt: skip
