"""The costs of one Gaussian latent: their exact moments against closed forms, quadrature and the slope of the cost."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from vae_jax.problems.gaussian_costs.gaussian_cost import CosineCost, ExponentialCost, SquareCost
from vae_jax.problems.problem import Problem

LOC, SCALE = 0.7, 0.6
PARAMS = {"loc": LOC, "scale": SCALE}


def square_mean(loc, scale):
    return (loc - 0.3) ** 2 + scale**2


def cosine_mean(loc, scale):
    return math.cos(1.5 * loc) * math.exp(-((1.5 * scale) ** 2) / 2)


def exponential_mean(loc, scale):
    widening = 1 + 2 * 0.8 * scale**2
    return math.exp(-0.8 * loc**2 / widening) / math.sqrt(widening)


COSTS = [
    (SquareCost(0.3), lambda z: (z - 0.3) ** 2, lambda z: 2 * (z - 0.3), square_mean),
    (CosineCost(1.5), lambda z: np.cos(1.5 * z), lambda z: -1.5 * np.sin(1.5 * z), cosine_mean),
    (ExponentialCost(0.8), lambda z: np.exp(-0.8 * z**2), lambda z: -1.6 * z * np.exp(-0.8 * z**2), exponential_mean),
]
EACH = pytest.mark.parametrize(("problem", "cost", "slope", "mean"), COSTS, ids=[each[0].name for each in COSTS])


@EACH
def test_each_is_a_problem(problem, cost, slope, mean):
    assert isinstance(problem, Problem)
    assert hash(problem) == hash(type(problem)(**vars(problem)))


@EACH
@pytest.mark.parametrize("estimator", ["pathwise", "score_function"])
def test_the_means_are_the_closed_form_of_the_cost_and_its_slopes(problem, cost, slope, mean, estimator):
    exact, step = problem.exact(PARAMS, estimator)(3), 1e-5
    assert exact["cost"].mean.value == pytest.approx(mean(LOC, SCALE), abs=1e-10)
    of_loc = (mean(LOC + step, SCALE) - mean(LOC - step, SCALE)) / (2 * step)
    of_scale = (mean(LOC, SCALE + step) - mean(LOC, SCALE - step)) / (2 * step)
    assert exact["loc"].mean.value == pytest.approx(of_loc, abs=1e-8)
    assert exact["scale"].mean.value == pytest.approx(of_scale, abs=1e-8)


@EACH
@pytest.mark.parametrize("num_samples", [1, 8])
def test_the_variances_are_those_of_quadrature(problem, cost, slope, mean, num_samples):
    def variance(term):
        first, second = (
            integrate.quad(lambda e, p=p: term(e) ** p * stats.norm.pdf(e), -10, 10, epsabs=1e-12)[0] for p in (1, 2)
        )
        return (second - first**2) / num_samples

    def z(noise):
        return LOC + SCALE * noise

    expected = {
        ("pathwise", "loc"): lambda e: slope(z(e)),
        ("pathwise", "scale"): lambda e: slope(z(e)) * e,
        ("score_function", "loc"): lambda e: cost(z(e)) * e / SCALE,
        ("score_function", "scale"): lambda e: cost(z(e)) * (e**2 - 1) / SCALE,
    }
    for (estimator, name), term in expected.items():
        exact = problem.exact(PARAMS, estimator)(num_samples)
        assert exact[name].std.value ** 2 == pytest.approx(variance(term), rel=1e-7)


def test_what_is_not_known_has_a_mean_alone():
    exact = SquareCost(0.3).exact(PARAMS, "gumbel_softmax")(10)
    assert exact["loc"].std.status == "unknown"
    assert exact["loc"].mean.value == pytest.approx(2 * (LOC - 0.3), abs=1e-10)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="scale must be positive and finite, got -1"):
        SquareCost().exact({"loc": 0.0, "scale": -1.0}, "pathwise")
