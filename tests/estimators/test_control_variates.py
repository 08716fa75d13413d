"""Baselines with a state, control variates and coupled draws: exact means, variances, and what would bias them."""

import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased, is_biased
from vae_jax import distributions, elbo, leave_one_out, pathwise, score_function
from vae_jax.distributions import PositiveNormal
from vae_jax.estimators import in_blocks
from vae_jax.estimators.antithetic_pairs import antithetic_pairs
from vae_jax.estimators.baselines import (
    baseline_loss,
    init_moving_average,
    leave_one_pair_out,
    moving_average,
    update_moving_average,
)
from vae_jax.estimators.delta_method import delta_method_pathwise, delta_method_score
from vae_jax.estimators.score_function import moving_average_score, optimal_score
from vae_jax.estimators.sobol import randomized_sobol, scrambled_sobol
from vae_jax.typing import Estimator

score_leave_one_out = partial(score_function, baseline=leave_one_out)
score_leave_one_pair_out = partial(score_function, baseline=leave_one_pair_out)

CONTROLLED = {
    "optimal_score": optimal_score,
    "delta_method_pathwise": delta_method_pathwise,
    "delta_method_score": delta_method_score,
    "antithetic_pathwise": antithetic_pairs(pathwise),
    "antithetic_score": antithetic_pairs(score_function),
    "antithetic_leave_one_pair_out": antithetic_pairs(score_leave_one_pair_out),
    "sobol_pathwise": randomized_sobol(pathwise),
    "sobol_score": randomized_sobol(score_function),
}
NAMES = list(CONTROLLED)


def quickly(all_values, chosen):
    """All values as parameters of a test, of which those that are not chosen are slow."""
    return [value if value in chosen else pytest.param(value, marks=pytest.mark.slow) for value in all_values]


PARAMS = {"loc": jnp.float32(0.7), "scale": jnp.float32(0.6), "target": jnp.float32(-0.5)}
NUM_SAMPLES = 4


def square_loss(params, key, estimator, num_samples=NUM_SAMPLES):
    q = dist.Normal(params["loc"], params["scale"])
    return estimator(lambda z, q: (z - params["target"]) ** 2, q, key, num_samples)


def square_cost(params):
    return (params["loc"] - params["target"]) ** 2 + params["scale"] ** 2


def cosine_loss(params, key, estimator, num_samples=NUM_SAMPLES):
    q = dist.Normal(params["loc"], params["scale"])
    return estimator(lambda z, q: jnp.cos(z - params["target"]), q, key, num_samples)


def cosine_cost(params):
    return jnp.exp(-(params["scale"] ** 2) / 2) * jnp.cos(params["loc"] - params["target"])


square_exact, cosine_exact = (jax.jit(jax.value_and_grad(cost)) for cost in (square_cost, cosine_cost))


def statistics(loss, estimator, seed, num_replicates=60_000, params=PARAMS, **options):
    return gradient_moments(partial(loss, estimator=estimator, **options), params, jax.random.key(seed), num_replicates)


def variance_of(moments, parameter):
    """A gradient's variance and its standard error."""
    return moments.variance[parameter], 2 * moments.std[parameter] * moments.std_se[parameter]


def assert_right(measured, exact_value, exact_gradient, resolution):
    # The floor is float32's, for an estimator without variance.
    floor = 1e-5
    assert_unbiased(measured.value.mean, measured.value.mean_se + floor, exact_value, resolution=resolution)
    for mean, error, exact in zip(
        *map(jax.tree.leaves, (measured.gradient.mean, measured.gradient.mean_se, exact_gradient)), strict=True
    ):
        assert_unbiased(mean, error + floor, exact, resolution=resolution)


@pytest.mark.parametrize("name", NAMES)
def test_means_are_exact_and_the_variance_of_loc_is_below_plain(name):
    num_samples = 8
    measured = statistics(square_loss, CONTROLLED[name], 0, num_samples=num_samples)
    assert_right(measured, *square_exact(PARAMS), resolution=0.3)
    d, s = float(PARAMS["loc"] - PARAMS["target"]), float(PARAMS["scale"])
    plain = 4 * s**2 if "pathwise" in name else d**4 / s**2 + 14 * d**2 + 15 * s**2
    assert num_samples * measured.gradient.variance["loc"] < plain / 1.2


@pytest.mark.parametrize(
    "name",
    quickly(NAMES, ["delta_method_pathwise", "delta_method_score", "antithetic_leave_one_pair_out", "sobol_score"]),
)
def test_means_are_exact_for_a_cost_that_no_polynomial_fits(name):
    measured = statistics(cosine_loss, CONTROLLED[name], 0)
    assert_right(measured, *cosine_exact(PARAMS), resolution=0.3)


THIRDS = np.float32([0.2, 0.3, 0.5])
VALUES = np.float32([1.0, -2.0, 0.5])
ORDERED = np.float32([-0.5, 0.8])


def value_of(z, q):
    return jnp.asarray(VALUES)[z]


NOT_FREE = {
    "probabilities": (
        lambda p: dist.Categorical(probs=jax.nn.softmax(p)), value_of, np.log(THIRDS),
        lambda p: jax.nn.softmax(p) @ VALUES,
    ),
    "counts": (
        lambda p: dist.Multinomial(3, probs=jax.nn.softmax(p)), lambda z, q: (z * VALUES).sum() ** 2, np.log(THIRDS),
        lambda p: 3 * jax.nn.softmax(p) @ VALUES**2 + 6 * (jax.nn.softmax(p) @ VALUES) ** 2,
    ),
    "ordered": (
        lambda p: dist.OrderedLogistic(p[0], ORDERED), lambda z, q: z.astype(float) ** 2, np.float32([0.4]),
        lambda p: jnp.diff(jax.nn.sigmoid(jnp.append(ORDERED, jnp.inf) - p[0]), prepend=0.0) @ jnp.arange(3.0) ** 2,
    ),
    "low rank": (
        lambda p: dist.LowRankMultivariateNormal(p, jnp.exp(p)[:, None], jnp.exp(-p)),
        lambda z, q: (VALUES * z**2).sum(), np.float32([0.3, -0.2, 0.1]),
        lambda p: (VALUES * (p**2 + jnp.exp(2 * p) + jnp.exp(-p))).sum(),
    ),
}  # fmt: skip
"""Families with parameters, or arrays derived from them, that cannot move alone; and the exact mean of an objective."""


@pytest.mark.parametrize("name", NOT_FREE)
@pytest.mark.parametrize("num_samples", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_parameters_that_cannot_move_alone_have_the_exact_gradient(name, num_samples):
    family, objective, params, mean = NOT_FREE[name]

    def loss(params, key):
        return optimal_score(objective, family(params["p"]), key, num_samples)

    gradient = gradient_moments(loss, {"p": jnp.asarray(params)}, jax.random.key(0), 50_000).gradient
    exact = jax.grad(mean)(jnp.asarray(params))
    assert_unbiased(gradient.mean["p"], gradient.mean_se["p"], exact, resolution=0.2 * float(jnp.abs(exact).max()))


@jax.tree_util.register_pytree_node_class
class OwnNormal(distributions.Reparameterized):
    """A distribution that is none of NumPyro's, and states no constraints."""

    batch_shape = ()
    has_rsample = True

    def __init__(self, loc):
        self.loc = loc

    def rsample(self, key, sample_shape=()):
        return self.loc + jax.random.normal(key, sample_shape)

    def log_prob(self, value):
        return -((value - self.loc) ** 2) / 2

    def tree_flatten(self):
        return (self.loc,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_a_user_s_own_distribution_has_the_exact_gradient():
    def loss(params, key):
        return optimal_score(lambda z, q: z**2, OwnNormal(params["loc"]), key, 20)

    gradient = gradient_moments(loss, {"loc": jnp.asarray(1.3)}, jax.random.key(0), 5_000).gradient
    assert_unbiased(gradient.mean["loc"], gradient.mean_se["loc"], 2.6, resolution=0.3)


FREE = {
    "normal": dist.Normal(0.3, 1.2), "gamma": dist.Gamma(2.0, 1.5), "beta": dist.Beta(2.0, 3.0),
    "student": dist.StudentT(5.0, 0.2, 1.1), "dirichlet": dist.Dirichlet(np.float32([2.0, 3.0, 1.5])),
    "logits": dist.Categorical(logits=np.log(THIRDS)), "log normal": dist.LogNormal(0.1, 0.5),
    "multivariate": dist.MultivariateNormal(np.float32([0.1, 0.2]), scale_tril=np.float32([[1.0, 0.0], [0.4, 0.7]])),
    "positive": PositiveNormal(1.0, 0.7), "probability": dist.Bernoulli(probs=0.3), "poisson": dist.Poisson(2.0),
    "chi2": dist.Chi2(3.0), "mixture": dist.MixtureSameFamily(
        dist.Categorical(logits=np.float32([0.2, -0.4])), dist.Normal(np.float32([-1.0, 2.0]), 0.8)
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FREE, *NOT_FREE])
def test_the_score_of_a_free_parameter_has_mean_zero(name):
    family = FREE[name] if name in FREE else NOT_FREE[name][0](jnp.asarray(NOT_FREE[name][2]))
    assert distributions.has_free_parameters(family) == (name in FREE)
    params, rebuild = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), family))
    with jax.numpy_rank_promotion("allow"):
        draws = family.sample(jax.random.key(1), (100_000,))
    scores = np.asarray(
        jax.vmap(jax.grad(lambda p, z: distributions.log_prob(rebuild(p), z)), (None, 0))(params, draws)
    )
    if name in FREE:
        assert_unbiased(scores.mean(0), scores.std(0) / math.sqrt(len(draws)) + 1e-6, 0.0, resolution=0.3)
    else:
        assert np.abs(scores.mean(0)).max() > 0.1


@pytest.mark.parametrize(("name", "num_samples"), [("optimal_score", 2), ("optimal_score", 3), ("sobol_score", 3)])
def test_means_are_exact_with_few_samples(name, num_samples):
    measured = statistics(square_loss, CONTROLLED[name], 1, 100_000, num_samples=num_samples)
    assert_right(measured, *square_exact(PARAMS), resolution=0.4)


MIXING = np.array([[1.0, 0.6, 0.0], [0.6, 0.8, -0.4], [0.0, -0.4, 0.5]], np.float32)
VECTOR = {"w": jnp.array([0.4, -0.3, 0.2]), "log_scale": jnp.log(jnp.array([0.5, 0.3, 0.8])), "b": jnp.float32(0.3)}


def vector_q(params):
    return {"w": dist.Normal(params["w"], jnp.exp(params["log_scale"])).to_event(1), "b": dist.Normal(params["b"], 0.5)}


def vector_loss(params, key, estimator, cubic=0.0, num_samples=NUM_SAMPLES):
    def objective(z, q):
        return z["w"] @ MIXING @ z["w"] / 2 + z["b"] * z["w"][0] - z["b"] + cubic * z["w"][1] * z["w"][2] * z["b"]

    return estimator(objective, vector_q(params), key, num_samples)


def vector_cost(params, cubic=0.0):
    w, b = params["w"], params["b"]
    trace = jnp.diag(MIXING) @ jnp.exp(2 * params["log_scale"]) / 2
    return w @ MIXING @ w / 2 + trace + b * w[0] - b + cubic * w[1] * w[2] * b


vector_exact = jax.jit(jax.value_and_grad(vector_cost))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    quickly(
        ["optimal_score", "delta_method_pathwise", "delta_method_score", "antithetic_score", "sobol_score"],
        ["optimal_score", "delta_method_score", "antithetic_score"],
    ),
)
def test_means_are_exact_for_a_pytree_with_a_vector(name):
    measured = statistics(vector_loss, CONTROLLED[name], 2, params=VECTOR, cubic=1.0)
    assert_right(measured, *vector_exact(VECTOR, 1.0), resolution=0.3)


# Baselines


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_a_constant_stream_stays_what_it_is(decay):
    state = init_moving_average()
    assert moving_average(state)(jnp.zeros(3)) == 0
    for _ in range(5):
        state = update_moving_average(state, jnp.ones(3), decay=decay)
        assert moving_average(state)(jnp.zeros(3)) == pytest.approx(1, rel=1e-6)


def test_the_average_weighs_the_past_by_powers_of_the_decay():
    state = init_moving_average()
    for value in (1.0, 2.0, 4.0):
        state = update_moving_average(state, value, decay=0.5)
    assert moving_average(state)(jnp.zeros(2)) == pytest.approx((0.25 * 1 + 0.5 * 2 + 4) / 1.75)


def test_debiasing_twice_would_move_a_constant():
    stored_debiased = 1.0
    assert stored_debiased / (1 - 0.9**2) != pytest.approx(1, rel=1e-2)


def old_state(exact_value):
    """The state after infinitely many values, all at their mean."""
    return init_moving_average()._replace(weighted_sum=jnp.float32(exact_value), weight=jnp.float32(1))


def before_the_batch(objective, q, key, num_samples, decay=0.5):
    return score_function(objective, q, key, num_samples, baseline=moving_average(old_state(square_cost(PARAMS))))


def with_the_batch(objective, q, key, num_samples, decay=0.5):
    def own(values):
        return moving_average(update_moving_average(old_state(square_cost(PARAMS)), values, decay=decay))(values)

    return score_function(objective, q, key, num_samples, baseline=own)


@pytest.mark.parametrize("num_samples", quickly([1, 2, 3], [1, 3]))
def test_the_average_before_the_batch_is_unbiased_and_one_with_it_is_not(num_samples):
    exact = square_exact(PARAMS)[1]
    for estimator, factor in ((before_the_batch, 1), (with_the_batch, 1 - 0.5 / num_samples)):
        gradient = statistics(square_loss, estimator, 4, 100_000, num_samples=num_samples).gradient
        for name in ("loc", "scale"):
            mean, error = gradient.mean[name], gradient.mean_se[name]
            assert_unbiased(mean, error, factor * exact[name], resolution=0.4)
            assert is_biased(mean, error, exact[name]) == (factor != 1)


def test_a_training_step_carries_the_average_on():
    def loss(params, key, state):
        q = dist.Normal(params["loc"], params["scale"])
        return moving_average_score(lambda z, q: (z - params["target"]) ** 2, q, key, 2, state=state, decay=0.95)

    def step(state, key):
        (value, state), gradient = jax.value_and_grad(loss, has_aux=True)(PARAMS, key, state)
        return state, (value, gradient["loc"])

    state, (values, gradients) = jax.jit(partial(jax.lax.scan, step))(
        init_moving_average(), jax.random.split(jax.random.key(5), 40_000)
    )
    exact_value, exact = square_exact(PARAMS)
    weights = 0.05 * 0.95 ** np.arange(2_000)[::-1]
    assert moving_average(state)(values) == pytest.approx(float(weights @ np.asarray(values[-2_000:])), rel=1e-4)
    # Successive gradients are uncorrelated given the state, so that the usual standard error holds.
    error = gradients.std() / np.sqrt(len(gradients))
    assert_unbiased(gradients.mean(), error, exact["loc"], resolution=0.3)
    assert values.mean() == pytest.approx(float(exact_value), abs=0.05)


def test_a_learned_baseline_is_trained_by_its_own_loss_alone():
    values = jnp.array([1.0, 2.0, 6.0])
    in_prediction, in_values = jax.grad(baseline_loss, argnums=(0, 1))(jnp.float32(2.0), values)
    assert in_prediction == pytest.approx(2 * (2.0 - 3.0))
    assert not in_values.any()
    assert baseline_loss(values, values) == 0

    def loss(weight, key):
        return score_function(lambda z, q: z**2, NORMAL, key, 3, baseline=lambda values: weight * 1.5)

    assert jax.jit(jax.grad(loss))(2.0, jax.random.key(0)) == 0


# The score as a control variate

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def optimal_variance(parameter, distance, scale, num_samples):
    """S times the variance, to first order beyond the best constant's: h is what estimates the coefficient.

    E[(f - c)^2 s^2] - g^2 + (E[s^2] E[h^2] + E[s h]^2) / (S - 1), h = (f - c) s^2 / E[s^2].
    """
    cost = (distance + scale * NODES) ** 2
    score = {"loc": NODES, "scale": NODES**2 - 1}[parameter] / scale
    square = WEIGHTS @ score**2
    centred = cost - WEIGHTS @ (cost * score**2) / square
    noise = centred * score**2 / square
    best = WEIGHTS @ (centred * score) ** 2 - (WEIGHTS @ (centred * score)) ** 2
    return best, best + (square * (WEIGHTS @ noise**2) + (WEIGHTS @ (score * noise)) ** 2) / (num_samples - 1)


def test_the_optimal_coefficient_s_variance_tends_to_the_best_constant_baseline_s():
    num_samples, num_replicates = 500, 8_000
    measured = statistics(square_loss, optimal_score, 6, num_replicates, num_samples=num_samples).gradient
    distance, scale = float(PARAMS["loc"] - PARAMS["target"]), float(PARAMS["scale"])
    closed_forms = {
        "loc": 8 * distance**2 + 6 * scale**2,
        "scale": 40 * distance**2 + 24 * scale**2,
    }
    for parameter, limit in closed_forms.items():
        best, expected = optimal_variance(parameter, distance, scale, num_samples)
        assert best == pytest.approx(limit, rel=1e-9)
        assert expected < 1.1 * best
        variance, error = variance_of(measured, parameter)
        assert_unbiased(num_samples * variance, num_samples * error, expected, resolution=0.3 * limit)


def shared_coefficient(objective, q, key, num_samples):
    """A control variate whose coefficient is estimated from the very samples that it corrects."""
    samples = distributions.sample(q, key, num_samples)
    values = jax.lax.stop_gradient(jax.vmap(objective, in_axes=(0, None))(samples, q))
    score = (samples - q.loc) / q.scale**2
    coefficient = jax.lax.stop_gradient((values * score**2).sum() / (score**2).sum())
    return ((values - coefficient) * jax.lax.stop_gradient(score)).mean() * q.loc


def test_a_coefficient_shared_by_its_samples_is_biased():
    gradient = statistics(square_loss, shared_coefficient, 7).gradient
    assert is_biased(gradient.mean["loc"], gradient.mean_se["loc"], square_exact(PARAMS)[1]["loc"])


@pytest.mark.parametrize(
    "q",
    [
        lambda p: dist.LogNormal(p, 0.5),
        lambda p: dist.Gamma(jnp.exp(p), 2.0),
        pytest.param(lambda p: distributions.PositiveNormal(1 + p, jnp.exp(p)), marks=pytest.mark.slow),
        lambda p: dist.Categorical(logits=jnp.stack([p, 0.0, -p])),
        pytest.param(lambda p: dist.Binomial(3, logits=p), marks=pytest.mark.slow),
        lambda p: (dist.Normal(0.0, jnp.exp(p)).expand([2]).to_event(1), dist.Poisson(jnp.exp(p))),
    ],
)
def test_the_parameters_of_every_family_are_found(q):
    """With two samples the coefficient is the other sample's value, and the estimate leave-one-out's."""

    def loss(p, key, estimator):
        return estimator(lambda z, q: sum(jnp.sum(leaf * 1.0) ** 2 for leaf in jax.tree.leaves(z)), q(p), key, 2)

    key = jax.random.key(8)

    @jax.jit
    def both(p):
        return [jax.value_and_grad(loss)(p, key, estimator) for estimator in (optimal_score, score_leave_one_out)]

    (value, gradient), (expected_value, expected) = both(0.2)
    assert value == pytest.approx(float(expected_value), rel=1e-5)
    assert gradient == pytest.approx(float(expected), rel=1e-3, abs=1e-5)


# The delta method


def over_keys(loss, params, number):
    """Values and gradients, along the first axes."""
    draw = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))
    return jax.device_get(draw(params, jax.random.split(jax.random.key(0), number)))


@pytest.mark.parametrize("estimator", [delta_method_pathwise, delta_method_score])
@pytest.mark.parametrize(
    ("loss", "exactly", "params"), [(square_loss, square_exact, PARAMS), (vector_loss, vector_exact, VECTOR)]
)
def test_a_quadratic_objective_has_no_variance_under_the_delta_method(estimator, loss, exactly, params):
    exact_value, exact = exactly(params)
    values, gradients = over_keys(partial(loss, estimator=estimator), params, 3)
    np.testing.assert_allclose(values, np.full(3, exact_value), rtol=1e-5)
    for name in set(params) - {"target"}:
        np.testing.assert_allclose(gradients[name], np.stack([exact[name]] * 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "closed_form"), [(delta_method_pathwise, None), (delta_method_score, distributions.entropy)]
)
def test_the_delta_method_s_elbo_is_right(estimator, closed_form):
    def loss(params, key):
        def log_joint(z):
            return dist.Normal(params["target"], 1.0).log_prob(z) - jnp.log1p(jnp.exp(-z))

        q = dist.Normal(params["loc"], params["scale"])
        return elbo(log_joint, q, key, 2, estimator=estimator, closed_form=closed_form)

    def expected(params):
        z = params["loc"] + params["scale"] * NODES.astype(np.float32)
        log_joint = dist.Normal(params["target"], 1.0).log_prob(z) - jnp.log1p(jnp.exp(-z))
        return log_joint @ WEIGHTS.astype(np.float32) + dist.Normal(0.0, params["scale"]).entropy()

    measured = gradient_moments(loss, PARAMS, jax.random.key(9), 60_000)
    assert_right(measured, *jax.jit(jax.value_and_grad(expected))(PARAMS), resolution=0.1)


def test_the_delta_method_forgets_no_expectation():
    def without_expectation(objective, q, key, num_samples):
        held = jax.tree.map(jax.lax.stop_gradient, q)
        lost = delta_method_pathwise(objective, held, key, num_samples)
        return score_function(objective, q, key, num_samples) - lost + jax.lax.stop_gradient(lost) - lost

    gradient = statistics(square_loss, without_expectation, 10).gradient
    assert is_biased(gradient.mean["target"], gradient.mean_se["target"], square_exact(PARAMS)[1]["target"])


# Coupled draws


def test_antithetic_variances_of_the_square_cost_are_the_closed_forms():
    num_samples, num_replicates = 6, 100_000
    d, s = float(PARAMS["loc"] - PARAMS["target"]), float(PARAMS["scale"])
    pairs = num_samples // 2
    path = statistics(square_loss, antithetic_pairs(pathwise), 11, num_replicates, num_samples=num_samples)
    score = statistics(square_loss, antithetic_pairs(score_function), 11, num_replicates, num_samples=num_samples)
    assert path.gradient.variance["loc"] < 1e-10
    assert path.gradient.mean["loc"] == pytest.approx(2 * d, rel=1e-5)
    score_scale = 2 * d**4 / s**2 + 20 * d**2 + 74 * s**2
    for measured, parameter, exact in (
        (path, "scale", 8 * s**2),
        (score, "loc", 8 * d**2),
        (score, "scale", score_scale),
    ):
        variance, error = variance_of(measured.gradient, parameter)
        assert_unbiased(variance * pairs, error * pairs, exact, resolution=0.5 * exact)
    value = path.value
    assert_unbiased(value.variance * pairs, 2 * value.std * value.std_se * pairs, 2 * s**4, resolution=s**4)


def test_a_linear_objective_has_no_variance_under_antithetic_pairs():
    def loss(params, key, estimator):
        return estimator(lambda z, q: 3 * z, dist.Normal(params["loc"], params["scale"]), key, 2)

    values, gradients = over_keys(partial(loss, estimator=antithetic_pairs(pathwise)), PARAMS, 3)
    np.testing.assert_allclose(values, 3 * 0.7, rtol=1e-5)
    np.testing.assert_allclose(gradients["loc"], 3, rtol=1e-6)
    np.testing.assert_allclose(gradients["scale"], 0, atol=1e-6)


def test_leave_one_out_under_antithetic_pairs_is_biased_by_its_partner():
    """The factor is 1 + 1/(S - 1) for loc, whose score is odd, and 1 - 1/(S - 1) for scale, whose score is even."""

    def hidden(objective, q, key, num_samples):
        return score_leave_one_out(objective, q, key, num_samples)

    exact = square_exact(PARAMS)[1]
    gradient = statistics(square_loss, antithetic_pairs(hidden), 12, 100_000).gradient
    for name, factor in (("loc", 1 + 1 / (NUM_SAMPLES - 1)), ("scale", 1 - 1 / (NUM_SAMPLES - 1))):
        assert_unbiased(gradient.mean[name], gradient.mean_se[name], factor * exact[name], resolution=0.3)
        assert is_biased(gradient.mean[name], gradient.mean_se[name], exact[name])


def test_leave_one_out_under_sobol_is_biased():
    def hidden(objective, q, key, num_samples):
        return score_leave_one_out(objective, q, key, num_samples)

    gradient = statistics(square_loss, randomized_sobol(hidden), 13, 40_000).gradient
    assert is_biased(gradient.mean["loc"], gradient.mean_se["loc"], square_exact(PARAMS)[1]["loc"])


@pytest.mark.parametrize("estimator", [pathwise, score_function])
def test_sobol_s_variance_falls_faster_than_independent_draws(estimator):
    few, many = (
        statistics(cosine_loss, randomized_sobol(estimator), 14, 500, num_samples=num_samples).gradient.variance
        for num_samples in (16, 256)
    )
    for name in ("loc", "scale"):
        slope = np.log(many[name] / few[name]) / np.log(256 / 16)
        # -1 for independent draws.
        assert slope < -1.6


def test_sobol_points_are_a_net_and_each_is_uniform():
    draw = jax.jit(jax.vmap(lambda key: scrambled_sobol(key, 16, 0, 3)))
    points = draw(jax.random.split(jax.random.key(15), 4_000))
    points = np.asarray(points, float) / 2**32
    # One point in each sixteenth of each dimension, and in each 4 by 4 square of the first two.
    strata = np.sort((points * 16).astype(int), axis=1)
    assert (strata == np.arange(16)[None, :, None]).all()
    squares = np.sort((points[..., 0] * 4).astype(int) * 4 + (points[..., 1] * 4).astype(int), axis=1)
    assert (squares == np.arange(16)).all()
    for point in (0, 5, 15):
        for dimension in range(3):
            assert stats.kstest(points[:, point, dimension], "uniform").pvalue > 1e-9


FAMILIES = {
    "normal": (lambda p: dist.Normal(p, jnp.exp(p)), stats.norm(0.3, np.exp(0.3))),
    "log_normal": (lambda p: dist.LogNormal(p, 0.5), stats.lognorm(0.5, scale=np.exp(0.3))),
    "logistic": (lambda p: dist.Logistic(p, jnp.exp(p)), stats.logistic(0.3, np.exp(0.3))),
    "gumbel": (lambda p: dist.Gumbel(p, jnp.exp(p)), stats.gumbel_r(0.3, np.exp(0.3))),
    "exponential": (lambda p: dist.Exponential(jnp.exp(p)), stats.expon(scale=np.exp(-0.3))),
    "half_normal": (lambda p: dist.HalfNormal(jnp.exp(p)), stats.halfnorm(scale=np.exp(0.3))),
    "positive_normal": (lambda p: distributions.PositiveNormal(p, 1.0), stats.truncnorm(-0.3, np.inf, 0.3)),
    "student_t": (lambda p: dist.StudentT(5.0, p, jnp.exp(p)), stats.t(5, 0.3, np.exp(0.3))),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", quickly(FAMILIES, ["normal", "exponential", "positive_normal", "student_t"]))
def test_coupled_draws_have_the_family_s_distribution(family):
    build, target = FAMILIES[family]
    step = 1e-4
    transforms = [antithetic_pairs] if family == "student_t" else [antithetic_pairs, randomized_sobol]
    for transform in transforms:

        def draws(p, key, transform=transform):
            drawn = []

            def drawing(objective, q, key, num_samples):
                drawn.append(distributions.rsample(q, key, num_samples))
                return drawn[0].mean()

            transform(drawing)(lambda z, q: 0.0, build(p), key, 2)
            return drawn[0]

        keys = jax.random.split(jax.random.key(16), 4_000)
        samples, slopes = jax.jit(jax.vmap(lambda key: jax.jvp(lambda p: draws(p, key), (0.3,), (1.0,))))(keys)
        for place in range(2):
            assert stats.kstest(np.asarray(samples[:, place], float), target.cdf).pvalue > 1e-9
        # A path keeps the distribution as p moves: dz/dp = -(dF/dp) / p(z) for quantiles and location-scale alike.
        if transform is randomized_sobol:
            z = np.asarray(samples[:50, 0], float)
            with jax.enable_x64(True):
                cdf = build(jnp.float64(0.3 + step)).cdf(z) - build(jnp.float64(0.3 - step)).cdf(z)
            cdf = np.asarray(cdf) / (2 * step)
            np.testing.assert_allclose(slopes[:50, 0], -cdf / target.pdf(z), rtol=2e-2, atol=1e-3)


def test_sobol_draws_a_full_covariance_and_shares_one_sequence():
    scale_tril = jnp.array([[1.0, 0.0], [0.8, 0.5]])

    def loss(params, key):
        q = (dist.MultivariateNormal(params["loc"], scale_tril=scale_tril), dist.Exponential(1.0))
        return randomized_sobol(pathwise)(lambda z, q: z[0][0] * z[0][1] * z[1], q, key, 16)

    measured = gradient_moments(loss, {"loc": jnp.array([0.5, -1.0])}, jax.random.key(17), 5_000)
    assert_unbiased(measured.value.mean, measured.value.mean_se, -0.5 + 0.8, resolution=0.2)
    assert_unbiased(measured.gradient.mean["loc"], measured.gradient.mean_se["loc"], [-1.0, 0.5], resolution=0.2)


@pytest.mark.parametrize("transform", [antithetic_pairs, randomized_sobol])
def test_the_objective_sees_q_itself(transform):
    def objective(z, q):
        assert type(q) is dist.Normal
        return z * q.loc

    def loss(loc):
        return transform(score_function)(objective, dist.Normal(loc, 1.0), jax.random.key(0), 2)

    jax.eval_shape(jax.grad(loss), 1.0)


# Common to all


def uncompiled(function):
    """As it is: one operation after another is then compiled by itself, which is slow."""
    return function


TRANSFORMED = [
    *((name, jax.jit) for name in ("optimal_score", "delta_method_score", "antithetic_pathwise", "sobol_score")),
    *(pytest.param(name, uncompiled, marks=pytest.mark.slow) for name in NAMES),
]


@pytest.mark.parametrize(("name", "compiled"), TRANSFORMED)
def test_transformations_and_dtypes(name, compiled):
    estimator = CONTROLLED[name]
    assert isinstance(estimator, Estimator)
    keys = jax.random.split(jax.random.key(18), 2)
    gradient = jax.value_and_grad(partial(cosine_loss, estimator=estimator))
    alone = compiled(gradient)(PARAMS, keys[0])
    batch = jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(PARAMS, keys)
    chex.assert_trees_all_close(alone, jax.tree.map(lambda leaf: leaf[0], batch), rtol=2e-4, atol=2e-5)
    blocks = partial(cosine_loss, estimator=in_blocks(estimator, NUM_SAMPLES), num_samples=2 * NUM_SAMPLES)
    blocked = jax.jit(blocks)(PARAMS, jax.random.key(18))
    assert blocked == pytest.approx(float(batch[0].mean()), rel=1e-5)
    assert batch[0].dtype == jnp.float32
    with jax.enable_x64(True):
        double = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float64), VECTOR)
        assert jax.eval_shape(partial(vector_loss, estimator=estimator), double, keys[0]).dtype == jnp.float64


@pytest.mark.parametrize("name", NAMES)
def test_an_invalid_scale_surfaces(name):
    def loss(scale, key):
        log_joint = dist.Normal(0.3, 1.0).log_prob
        return elbo(log_joint, dist.Normal(1.0, scale), key, 4, estimator=CONTROLLED[name])

    value, gradient = jax.jit(jax.value_and_grad(loss))(0.0, jax.random.key(19))
    assert not np.isfinite(value)
    assert not np.isfinite(gradient)


NORMAL = dist.Normal(0.0, 1.0)
GAMMA = {"rate": dist.Gamma(2.0, 1.0)}


def objective_of_shape_two(z, q):
    return jnp.stack([z, z])


def run(estimator, q=NORMAL, num_samples=4, objective=lambda z, q: sum(jax.tree.leaves(z))):
    return lambda: estimator(objective, q, jax.random.key(0), num_samples)


MISUSES = [
    (ValueError, "optimal_score needs at least 2 samples, got 1", run(optimal_score, num_samples=1)),
    (ValueError, "num_samples must be at least 1, got 0", run(optimal_score, num_samples=0)),
    (ValueError, "leave_one_pair_out needs an even number of samples, at least 4, got 2", run(
        score_leave_one_pair_out, num_samples=2)),
    (ValueError, "leave_one_pair_out needs .* got 5", run(score_leave_one_pair_out, num_samples=5)),
    (ValueError, "decay must be at least 0 and less than 1, got 1", lambda: update_moving_average(
        init_moving_average(), 1.0, decay=1.0)),
    (ValueError, r"prediction must be a scalar or of shape \(3,\), got shape \(2,\)", lambda: baseline_loss(
        jnp.zeros(2), jnp.zeros(3))),
    (TypeError, r"q\['rate'\] must be a Normal .*, got Gamma: use pathwise", run(delta_method_pathwise, GAMMA)),
    (TypeError, "q must be a Normal .*, got Poisson: use score_function", run(delta_method_score, dist.Poisson(1.0))),
    (TypeError, "q must be a Normal .*, got LogNormal: use pathwise", run(
        delta_method_score, dist.LogNormal(0.0, 1.0))),
    (ValueError, "one scalar for one sample", run(delta_method_score, objective=objective_of_shape_two)),
    (ValueError, r"q must have an empty batch shape, got \(2,\)", run(
        delta_method_pathwise, dist.Normal(jnp.zeros(2), 1.0))),
    (ValueError, "num_samples must be even for antithetic pairs, got 3", run(
        antithetic_pairs(pathwise), num_samples=3)),
    (ValueError, "num_samples must be even for antithetic pairs, got 3", run(
        antithetic_pairs(in_blocks(pathwise, 3)), num_samples=6)),
    (TypeError, r"q\['rate'\] is a Gamma, which is not symmetric", run(antithetic_pairs(pathwise), GAMMA)),
    (TypeError, r"q\['rate'\] is a Gamma, which has no quantile", run(randomized_sobol(pathwise), GAMMA)),
    (TypeError, "q is a StudentT, which has no quantile", run(randomized_sobol(pathwise), dist.StudentT(3.0))),
    (TypeError, "q is a DiscreteUniform, which has no quantile", run(
        randomized_sobol(score_function), dist.DiscreteUniform(0, 3))),
    (TypeError, "q is a Poisson, which is not symmetric", run(antithetic_pairs(score_function), dist.Poisson(2.0))),
    (TypeError, "q must be a distribution, got float", run(randomized_sobol(pathwise), 1.0)),
    (ValueError, "got leave_one_out: use leave_one_pair_out", lambda: antithetic_pairs(score_leave_one_out)),
    (ValueError, "got optimal_score: use score_function", lambda: antithetic_pairs(optimal_score)),
    (ValueError, "got optimal_score: use score_function", lambda: antithetic_pairs(in_blocks(optimal_score, 4))),
    (
        ValueError,
        "got leave_one_out: use leave_one_pair_out",
        lambda: antithetic_pairs(in_blocks(partial(score_function, baseline=leave_one_out), 4)),
    ),
    (
        ValueError,
        "got <lambda>: use leave_one_pair_out",
        lambda: antithetic_pairs(partial(score_function, baseline=lambda values: leave_one_out(values))),
    ),
    (ValueError, "got leave_one_out: use no_baseline", lambda: randomized_sobol(score_leave_one_out)),
    (ValueError, "got leave_one_pair_out: use no_baseline", lambda: randomized_sobol(
        partial(score_leave_one_pair_out))),
    (ValueError, r"q must have an empty batch shape, got \(2,\)", run(
        randomized_sobol(pathwise), dist.Normal(jnp.zeros(2), 1.0))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), MISUSES)
def test_misuse_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
