"""The exact moments of the discrete costs, against closed forms and against measured ones."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from monte_carlo import assert_unbiased, is_biased
from vae_jax import gradient_statistics, leave_one_out, score_function
from vae_jax.estimators.arm import arm, categorical_disarm, disarm
from vae_jax.estimators.enumeration import enumeration, rao_blackwellized
from vae_jax.estimators.gumbel_softmax import gumbel_softmax
from vae_jax.estimators.rebar import rebar
from vae_jax.problems.discrete_costs.discrete_cost import BernoulliCost, BernoulliVectorCost, CategoricalCost
from vae_jax.problems.problem import Problem

ESTIMATORS = {
    "score_function": score_function,
    "score_function+leave_one_out": partial(score_function, baseline=leave_one_out),
    "enumeration": enumeration,
    "rao_blackwellized": rao_blackwellized,
    "rebar": rebar,
    "arm": arm,
    "disarm": disarm,
    "categorical_disarm": categorical_disarm,
}
PROBLEMS = [
    (BernoulliCost(), {"logit": 0.4}),
    (BernoulliCost(target=0.2), {"logit": -1.5}),
    (BernoulliVectorCost(), BernoulliVectorCost().default_params),
    (BernoulliVectorCost(weights=(0.3, -2.0), target=-1.0), {"logits": (2.0, -0.7)}),
    (CategoricalCost(), CategoricalCost().default_params),
    (CategoricalCost(values=(1.0, 3.0)), {"logits": (0.3, -1.0)}),
]
# Every estimator is quick with one of the problems. The registry's tests measure them with others.
CASES = [
    pytest.param(
        problem,
        params,
        name,
        id=f"{problem.name}-{name}",
        marks=[] if isinstance(problem, BernoulliVectorCost) else pytest.mark.slow,
    )
    for problem, params in PROBLEMS[::2]
    for name in ESTIMATORS
    if not (isinstance(problem, CategoricalCost) and name in ("arm", "disarm"))
]


def flat(value, gradient):
    return np.asarray([value, *jax.tree.leaves(gradient)], float)


@pytest.mark.parametrize(("problem", "params", "name"), CASES)
def test_mean_and_variance_are_the_exact_ones(problem, params, name):
    num_replicates = 40_000
    loss = partial(problem.estimate, num_samples=4, estimator=ESTIMATORS[name])
    value, gradient = gradient_statistics(
        loss, jax.tree.map(jnp.asarray, params), jax.random.key(0), num_replicates, tail_size=0
    )
    means, stds = (flat(getattr(value, field), getattr(gradient, field)) for field in ("mean", "std"))
    errors = flat(value.mean_se, gradient.mean_se)
    exact = problem.exact(params, name)(4)
    for mean, std, error, moments in zip(means, stds, errors, exact.values(), strict=True):
        if moments.std.value == 0:
            assert mean == pytest.approx(moments.mean.value, abs=1e-5)
            assert std < 1e-6
            continue
        # What rounding in float32 adds to a variance close to zero.
        error = max(error, 1e-6)
        assert_unbiased(mean, error, moments.mean.value, resolution=0.1 * std + 1e-4)
        if moments.kurtosis.value is not None:
            assert_unbiased(std, moments.std_se(num_replicates) + 1e-7, moments.std.value, resolution=0.2 * std)


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("target", [0.45, 0.1])
def test_the_bernoulli_table(p, target):
    """Closed forms for f = (b - t)^2, d = f(1) - f(0) = 1 - 2 t."""
    q, d, m = 1 - p, 1 - 2 * target, max(p, 1 - p)
    problem, params = BernoulliCost(target), {"logit": math.log(p / q)}

    def variance(name, num_samples):
        moments = problem.exact(params, name)(num_samples)["logit"]
        assert moments.mean.value == pytest.approx(p * q * d)
        return moments.std.value**2

    assert variance("score_function", 1) == pytest.approx(p * q * (q * (1 - target) ** 2 + p * target**2) ** 2)
    assert variance("score_function+leave_one_out", 2) == pytest.approx(d**2 * p * q * (1 - 2 * p * q) / 2)
    for n in (3, 7):
        expected = d**2 * (p * q * (1 - 3 * p * q) / n - (p * q) ** 2 * (n - 3) / (n * (n - 1)))
        assert variance("score_function+leave_one_out", n) == pytest.approx(expected)
    arm_pair = d**2 * (2 / 3 * (1 / 8 - abs(p - 0.5) ** 3) - (p * q) ** 2)
    disarm_pair = d**2 * m**2 * (1 - m) * (m - 0.5)
    for pairs in (1, 5):
        assert variance("arm", 2 * pairs) == pytest.approx(arm_pair / pairs)
        assert variance("disarm", 2 * pairs) == pytest.approx(disarm_pair / pairs)
    assert variance("enumeration", 1) == 0


def test_known_numbers_at_one_half():
    names = ("score_function", "score_function+leave_one_out", "arm", "disarm")
    exact = {name: BernoulliCost().exact({"logit": 0.0}, name)(2)["logit"].std.value ** 2 for name in names}
    assert exact["score_function"] == pytest.approx(0.0159391 / 2, rel=3e-5)
    assert exact["score_function+leave_one_out"] == pytest.approx(6.25e-4)
    assert exact["arm"] == pytest.approx(2.0833e-4, rel=2e-5)
    assert exact["disarm"] == 0


@pytest.mark.parametrize(("problem", "params"), PROBLEMS)
def test_the_exact_gradient_is_the_slope_of_the_exact_cost(problem, params):
    names = list(problem.exact(params, "enumeration")(1))[1:]

    def cost(changed):
        return problem.exact(changed, "enumeration")(1)["cost"].mean.value

    for number, name in enumerate(names):

        def moved(step, number=number):
            ((key, old),) = params.items()
            if not isinstance(old, tuple):
                return {key: old + step}
            return {key: tuple(x + step * (i == number) for i, x in enumerate(old))}

        slope = (cost(moved(1e-5)) - cost(moved(-1e-5))) / 2e-5
        assert problem.exact(params, "enumeration")(1)[name].mean.value == pytest.approx(slope, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("problem", "params"), PROBLEMS)
def test_every_estimator_has_one_mean(problem, params):
    names = [*ESTIMATORS, "relax", "score_function+optimal_score", "gumbel_softmax"]
    means = [[moments.mean.value for moments in problem.exact(params, name)(2).values()] for name in names]
    np.testing.assert_allclose(means, [means[0]] * len(means), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("problem", "params"), PROBLEMS[:4])
def test_variances_are_in_their_order(problem, params):
    names = ("enumeration", "disarm", "arm")
    by_estimator = [list(problem.exact(params, name)(2).values())[1:] for name in names]
    stds = [[moments.std.value for moments in of_estimator] for of_estimator in by_estimator]
    assert np.all(np.diff(stds, axis=0) > 0)


def test_the_categorical_s_gradient_is_the_formula():
    problem = CategoricalCost()
    probs, values = softmax(problem.default_params["logits"]), np.asarray(problem.values)
    exact = problem.exact(problem.default_params, "rebar")(3)
    got = [exact[f"logits[{k}]"].mean.value for k in range(values.size)]
    np.testing.assert_allclose(got, probs * (values - probs @ values))
    assert exact["logits[0]"].std.status == "unknown"
    assert exact["cost"].std.status == "finite"


def test_one_variable_of_a_vector_is_the_scalar_problem():
    scalar = BernoulliCost(target=0.3)
    vector = BernoulliVectorCost(weights=(1.0,), target=0.3)
    for name in ESTIMATORS:
        one = scalar.exact({"logit": 0.7}, name)(4).values()
        other = vector.exact({"logits": (0.7,)}, name)(4).values()
        for a, b in zip(one, other, strict=True):
            assert a.mean.value == pytest.approx(b.mean.value)
            assert (a.std.value or 0) == pytest.approx(b.std.value or 0)


def test_a_relaxation_s_bias_is_caught():
    problem = BernoulliVectorCost()
    params = jax.tree.map(jnp.asarray, problem.default_params)
    loss = partial(problem.estimate, num_samples=4, estimator=gumbel_softmax)
    gradient = gradient_statistics(loss, params, jax.random.key(1), 40_000).gradient
    exact = problem.exact(problem.default_params, "gumbel_softmax")(4)
    truth = [exact[f"logits[{k}]"].mean.value for k in range(3)]
    assert is_biased(jax.tree.leaves(gradient.mean), jax.tree.leaves(gradient.mean_se), truth)


@pytest.mark.parametrize("problem", [BernoulliCost(), BernoulliVectorCost(), CategoricalCost()])
def test_each_is_a_problem(problem):
    assert isinstance(problem, Problem)
    assert hash(problem) == hash(type(problem)())
    params = problem.default_params
    problem.check_params(params)
    estimate = problem.estimate(params, jax.random.key(0), 1, estimator=enumeration)
    assert estimate == pytest.approx(problem.exact(params, "enumeration")(1)[problem.value_name].mean.value, rel=1e-5)


def test_a_logit_of_zero_is_no_exception():
    """There the derivative of NumPyro's own density is off."""
    problem = BernoulliCost()
    gradient = jax.grad(problem.estimate)({"logit": jnp.float32(0.0)}, jax.random.key(0), 1, estimator=enumeration)
    assert gradient["logit"] == pytest.approx(expit(0.0) ** 2 * 0.1, rel=1e-5)


MISUSES = [
    ("target must be finite, got nan", lambda: BernoulliCost(target=math.nan)),
    ("weights must be from 1 to 10 numbers, got 0", lambda: BernoulliVectorCost(weights=())),
    ("weights must be from 1 to 10 numbers, got 11", lambda: BernoulliVectorCost(weights=(1.0,) * 11)),
    ("weights must be finite, got inf", lambda: BernoulliVectorCost(weights=(math.inf,))),
    ("values must be from 2 to 10 numbers, got 1", lambda: CategoricalCost(values=(1.0,))),
    ("values must be finite, got nan", lambda: CategoricalCost(values=(1.0, math.nan))),
    ("logit must be finite, got inf", lambda: BernoulliCost().check_params({"logit": math.inf})),
    ("params must be logit, got logits", lambda: BernoulliCost().check_params({"logits": 0.0})),
    ("logits must be 4 numbers, got shape", lambda: CategoricalCost().check_params({"logits": (1.0, 2.0)})),
    ("logits must be finite", lambda: BernoulliVectorCost().check_params({"logits": (1.0, 2.0, math.nan)})),
    ("must be even and at least 2", lambda: BernoulliCost().exact({"logit": 0.0}, "arm")(3)),
    ("at least 2 samples, got 1", lambda: BernoulliCost().exact({"logit": 0.0}, "score_function+leave_one_out")(1)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), MISUSES)
def test_misuse_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
