"""The linear-Gaussian problem and the shifted posterior: their exact answers against formulas, quadrature and draws."""

import functools
import math
import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monte_carlo import assert_unbiased, is_biased
from vae_jax import gradient_statistics, importance_weighted, pathwise, score_function
from vae_jax.bounds import log_weights
from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import shifted_posterior
from vae_jax.problems.linear_gaussian import linear_gaussian
from vae_jax.problems.linear_gaussian.linear_gaussian import LinearGaussian
from vae_jax.problems.problem import Problem
from vae_jax.problems.shifted_posterior import ShiftedPosterior

LINEAR = LinearGaussian(x=1.5, prior_loc=0.3, prior_scale=1.2, noise_scale=0.8)
SHIFTED = ShiftedPosterior()
PROBLEMS = [LINEAR, SHIFTED]
# Every estimator is quick with one of the problems.
KNOWN = [
    pytest.param(problem, name, marks=[] if problem is LINEAR else pytest.mark.slow)
    for problem, module in ((LINEAR, linear_gaussian), (SHIFTED, shifted_posterior))
    for name in module._MOMENTS
    if name in ESTIMATORS
]


def by_element(tree, value):
    """A problem's names to what was measured."""
    named = {"elbo": float(value)}
    for name, leaf in tree.items():
        elements = np.asarray(leaf)
        named |= {name: float(elements)} if elements.ndim == 0 else {f"{name}[{i}]": e for i, e in enumerate(elements)}
    return named


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_they_are_problems(problem):
    assert isinstance(problem, Problem)
    assert hash(problem) == hash(type(problem)(**vars(problem)))


@pytest.mark.parametrize(("problem", "name"), KNOWN, ids=lambda thing: getattr(thing, "name", thing))
def test_mean_and_variance_are_the_exact_ones(problem, name):
    num_samples, num_replicates = 4, 100_000
    params = problem.default_params
    exact = problem.exact(params, name)(num_samples)
    loss = partial(problem.estimate, num_samples=num_samples, estimator=ESTIMATORS[name])
    value, gradient = gradient_statistics(loss, jax.tree.map(jnp.asarray, as_arrays(params)), KEY, num_replicates)
    means, stds = (by_element(getattr(gradient, field), getattr(value, field)) for field in ("mean", "std"))
    assert set(exact) == set(means)
    for parameter, moments in exact.items():
        std, mean = moments.std.value, moments.mean.value
        if std == 0:
            assert means[parameter] == pytest.approx(mean, rel=1e-5, abs=1e-5)
            assert stds[parameter] < 1e-5
            continue
        assert_unbiased(means[parameter], std / math.sqrt(num_replicates), mean, resolution=0.1 * std + 1e-6)
        if (error := moments.std_se(num_replicates)) is not None:
            assert_unbiased(stds[parameter], error, std, resolution=0.3 * std)


KEY = jax.random.key(0)


def as_arrays(params):
    return {name: np.asarray(value, np.float32) for name, value in params.items()}


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_a_wrong_gradient_does_not_pass(problem):
    def halved(objective, q, key, num_samples):
        return pathwise(objective, q, key, num_samples) / 2

    params = as_arrays(problem.default_params)
    loss = partial(problem.estimate, num_samples=4, estimator=halved)
    value, gradient = gradient_statistics(loss, params, KEY, 100_000)
    exact = problem.exact(problem.default_params, "pathwise")(4)
    means, errors = (by_element(getattr(gradient, f), getattr(value, f)) for f in ("mean", "mean_se"))
    for name, moments in exact.items():
        assert is_biased(means[name], errors[name], moments.mean.value)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_what_is_not_known_has_a_mean_alone(problem):
    exact = problem.exact(problem.default_params, "measure_valued")(10)
    known = problem.exact(problem.default_params, "score_function")(10)
    for name, moments in exact.items():
        assert moments.std.status == moments.kurtosis.status == "unknown"
        assert moments.mean.value == pytest.approx(known[name].mean.value, abs=1e-10)


def product_rule_bound(square, num_samples, num_nodes=60):
    """E[log 1/K sum_k w_k] less log p(x) by a product of K Gauss-Hermite rules."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = np.exp(math.sqrt(square) * nodes - square / 2)
    mean_weight = functools.reduce(operator.add, np.meshgrid(*[weights] * num_samples, sparse=True)) / num_samples
    mass = functools.reduce(operator.mul, np.meshgrid(*[masses / masses.sum()] * num_samples, sparse=True))
    return float((mass * np.log(mean_weight)).sum())


@pytest.mark.parametrize("num_samples", [1, 2, 3])
@pytest.mark.parametrize("size", [0.1, 0.7, 1.2])
def test_the_exact_bound_is_that_of_a_product_rule(size, num_samples):
    params = {"shift": (0.6 * size, 0.8 * size)}
    exact = SHIFTED.exact_bound(params, num_samples) - SHIFTED.log_evidence
    assert SHIFTED.squared_distance(params) == pytest.approx(size**2)
    assert exact == pytest.approx(product_rule_bound(size**2, num_samples), abs=1e-9)
    if num_samples == 1:
        assert exact == pytest.approx(-(size**2) / 2, abs=1e-12)


def test_the_exact_bound_far_off_and_at_many_samples():
    """The gap at squared distance 0.1 nears (exp(0.1) - 1) / (2 K) as K grows."""
    params = {"shift": (math.sqrt(0.1), 0.0)}
    gaps = {k: SHIFTED.log_evidence - SHIFTED.exact_bound(params, k) for k in (5, 50, 5_000)}
    leading = {k: math.expm1(0.1) / (2 * k) for k in gaps}
    errors = [abs(gaps[k] / leading[k] - 1) for k in gaps]
    assert errors[0] < 0.03
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4
    far = {"shift": (4.0, 0.0)}
    assert SHIFTED.exact_bound(far, 1) - SHIFTED.log_evidence == pytest.approx(-8, abs=1e-9)


@pytest.mark.parametrize("num_samples", [1, 5, 40])
def test_the_exact_bound_is_the_mean_of_draws(num_samples):
    params = {"shift": (0.8, -0.5)}
    loss = partial(importance_weighted, SHIFTED.log_joint, SHIFTED.q(params), num_samples=num_samples)
    keys = jax.random.split(jax.random.key(1), 40_000)
    values = np.asarray(jax.jit(jax.vmap(lambda key: loss(key)))(keys), float)
    error = values.std() / math.sqrt(values.size)
    assert_unbiased(values.mean(), error, SHIFTED.exact_bound(params, num_samples), resolution=0.06)
    if num_samples > 1:
        assert is_biased(values.mean(), error, SHIFTED.exact_bound(params, 1))


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 2.0])
def test_the_renyi_bounds_of_one_sample_are_the_elbo_and_order_themselves_with_more(alpha):
    params = {"shift": (0.6, 0.5)}
    elbo = SHIFTED.exact_bound(params, 1)
    # log p(x) less the Rényi divergence of q from the posterior.
    limit = SHIFTED.log_evidence - alpha * SHIFTED.squared_distance(params) / 2
    bounds = [SHIFTED.exact_bound(params, k, alpha=alpha) for k in (1, 4, 40, 100_000)]
    assert bounds[0] == pytest.approx(elbo, abs=1e-10)
    assert np.all(np.sign(np.diff(bounds)) == np.sign(1 - alpha))
    assert bounds[-1] == pytest.approx(limit, abs=1e-3)
    assert SHIFTED.exact_bound(params, 7, alpha=1.0) == pytest.approx(elbo, abs=1e-12)


def test_the_log_weights_are_normal_and_the_effective_sample_size_that_of_them():
    params = SHIFTED.default_params
    square = SHIFTED.squared_distance(params)
    logs = log_weights(SHIFTED.log_joint, SHIFTED.q(params), jax.random.key(2), 200_000)
    centred = np.asarray(logs, float) - SHIFTED.log_evidence
    assert_unbiased(centred.mean(), math.sqrt(square / 2e5), -square / 2, resolution=0.02)
    assert_unbiased(centred.var(), square * math.sqrt(2 / 2e5), square, resolution=0.02)
    weights = np.exp(centred)
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(200_000 * math.exp(-square), rel=0.02)


def test_sticking_the_landing_is_exact_at_any_shift_and_the_score_function_is_not():
    exact = SHIFTED.exact(SHIFTED.default_params, "sticking_the_landing")(1)
    for index, shift in enumerate(SHIFTED.shift):
        assert exact[f"shift[{index}]"].mean.value == pytest.approx(-shift, abs=1e-14)
        assert exact[f"shift[{index}]"].std.value == 0
    key = jax.random.key(3)
    params = as_arrays(SHIFTED.default_params)
    spread = jax.vmap(jax.grad(lambda p, k: SHIFTED.estimate(p, k, 1, estimator=score_function)), (None, 0))
    assert spread(params, jax.random.split(key, 100))["shift"].std() > 0.5


MISUSES = [
    ("shift must be 1 numbers, got shape", lambda: ShiftedPosterior(shift=())),
    ("shift must be 2 numbers, got shape", lambda: SHIFTED.check_params({"shift": (1.0,)})),
    ("shift must be finite", lambda: ShiftedPosterior(shift=(math.nan,))),
    ("params must be shift, got loc", lambda: SHIFTED.check_params({"loc": 1.0})),
    ("num_samples must be at least 1, got 0", lambda: SHIFTED.exact_bound(SHIFTED.default_params, 0)),
]


@pytest.mark.parametrize(("message", "call"), MISUSES)
def test_misuse_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
