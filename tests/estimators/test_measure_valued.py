"""Measure-valued derivatives of every family against closed forms, alone and inside vectors and pytrees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import expit, softmax

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased, is_biased
from vae_jax.distributions import OneHotCategorical
from vae_jax.estimators import ESTIMATORS, coupled_measure_valued, measure_valued

BOTH = pytest.mark.parametrize("estimator", [measure_valued, coupled_measure_valued])
COUPLED = pytest.mark.parametrize(
    "estimator", [pytest.param(measure_valued, marks=pytest.mark.slow), coupled_measure_valued]
)
"""The two estimators differ only in what they draw: of what does not depend on that, one is quick."""

WEIGHTS = np.float32([0.3, -1.0, 0.7, 0.1])
LOGITS = np.float32([0.2, -0.3, 0.5, 0.0])
PROBS = softmax(LOGITS)


def square(z, q):
    return (z**2).sum()


def weight_of(z, q):
    return jnp.asarray(WEIGHTS)[z]


def weight_of_vector(z, q):
    return (WEIGHTS * z).sum()


FAMILIES = {
    "normal": (dist.Normal, square, {"loc": 0.7, "scale": 1.3}, {"loc": 1.4, "scale": 2.6}),
    "gamma": (lambda rate: dist.Gamma(2.0, rate), square, {"rate": 1.5}, {"rate": -2 * 6 / 1.5**3}),
    "exponential": (dist.Exponential, square, {"rate": 1.5}, {"rate": -4 / 1.5**3}),
    "poisson": (dist.Poisson, lambda z, q: z.astype(float) ** 2, {"rate": 1.5}, {"rate": 1 + 2 * 1.5}),
    "bernoulli": (
        lambda logit: dist.Bernoulli(logits=logit), lambda z, q: (z - 0.2) ** 2, {"logit": 0.4},
        {"logit": expit(0.4) * expit(-0.4) * 0.6},
    ),
    "bernoulli_probs": (
        lambda prob: dist.Bernoulli(probs=prob), lambda z, q: (z - 0.2) ** 2, {"prob": 0.3}, {"prob": 0.6}
    ),
    "categorical": (
        lambda logits: dist.Categorical(logits=logits), weight_of, {"logits": LOGITS},
        {"logits": PROBS * (WEIGHTS - PROBS @ WEIGHTS)},
    ),
    "one_hot": (
        lambda logits: OneHotCategorical(logits), weight_of_vector, {"logits": LOGITS},
        {"logits": PROBS * (WEIGHTS - PROBS @ WEIGHTS)},
    ),
}  # fmt: skip


INDEPENDENT = {"normal", "bernoulli_probs", "categorical"}
"""Families that are quick with independent sides. All others are quick with coupled ones, and so is the normal."""

EACH_FAMILY = [
    pytest.param(name, estimator, id=f"{name}-{estimator.__name__}", marks=[] if is_quick else pytest.mark.slow)
    for name in FAMILIES
    for estimator, is_quick in (
        (measure_valued, name in INDEPENDENT),
        (coupled_measure_valued, name not in INDEPENDENT or name == "normal"),
    )
]


@functools.cache
def measured(name, estimator):
    family, objective, params, _ = FAMILIES[name]

    def loss(params, key):
        return estimator(objective, family(**params), key, 4)

    params = {key: np.float32(value) for key, value in params.items()}
    return gradient_moments(loss, params, jax.random.key(0), 20_000).gradient


@pytest.mark.parametrize(("name", "estimator"), EACH_FAMILY)
def test_every_family_has_its_exact_gradient(name, estimator):
    gradient = measured(name, estimator)
    for key, exact in FAMILIES[name][3].items():
        error = np.maximum(gradient.mean_se[key], 1e-7)
        assert_unbiased(gradient.mean[key], error, exact, resolution=0.15 * np.abs(exact).max())


@pytest.mark.parametrize(
    "name", ["normal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gamma", "exponential", "poisson"))]
)
def test_coupling_lowers_the_variance_of_a_smooth_cost(name):
    apart, together = (measured(name, estimator).variance for estimator in (measure_valued, coupled_measure_valued))
    assert all(together[key] < 0.7 * apart[key] for key in apart)


@COUPLED
def test_a_vector_and_a_scalar_of_one_pytree_are_changed_one_coordinate_at_a_time(estimator):
    params = {"loc": jnp.array([0.3, -0.5, 1.0]), "rate": jnp.array(2.0), "weight": jnp.array(0.7)}

    def loss(params, key):
        q = {"a": dist.Normal(params["loc"], 0.5).to_event(1), "b": dist.Exponential(params["rate"])}
        return estimator(lambda z, _: params["weight"] * (z["a"] ** 2).sum() * z["b"], q, key, 4)

    def exact(params):
        return params["weight"] * (params["loc"] ** 2 + 0.25).sum() / params["rate"]

    gradient = gradient_moments(loss, params, jax.random.key(1), 20_000).gradient
    for name, value in jax.grad(exact)(params).items():
        assert_unbiased(gradient.mean[name], gradient.mean_se[name], value, resolution=0.2)


@COUPLED
def test_nested_vectors_are_taken(estimator):
    q = dist.Normal(jnp.ones((2, 3)), 1.0).to_event(1).to_event(1)
    assert np.isfinite(jax.jit(lambda key: estimator(square, q, key, 3))(jax.random.key(0)))


@pytest.mark.slow
def test_a_scale_shared_by_a_vector_gets_the_sum_of_its_coordinates():
    def loss(scale, key):
        return coupled_measure_valued(square, dist.Normal(jnp.zeros(3), scale).to_event(1), key, 4)

    gradient = gradient_moments(loss, jnp.float32(0.8), jax.random.key(2), 20_000).gradient
    assert_unbiased(gradient.mean, gradient.mean_se, 6 * 0.8, resolution=0.2)


def test_a_wrong_constant_is_caught():
    def loss(loc, key):
        value = measure_valued(square, dist.Normal(loc, 1.0), key, 4)
        return jax.lax.stop_gradient(value) + 1.05 * (value - jax.lax.stop_gradient(value))

    gradient = gradient_moments(loss, jnp.float32(0.7), jax.random.key(4), 20_000).gradient
    assert is_biased(gradient.mean, gradient.mean_se, 1.4)


@COUPLED
def test_a_concentration_is_refused_only_where_it_is_differentiated(estimator):
    def loss(concentration, rate):
        return estimator(square, dist.Gamma(concentration, rate), jax.random.key(0), 3)

    value, in_rate = jax.jit(jax.value_and_grad(loss, argnums=1))(2.0, 1.5)
    assert np.isfinite(value)
    assert np.isfinite(in_rate)
    with pytest.raises(TypeError, match="the concentration of q, a Gamma, has no known measure-valued derivative"):
        jax.eval_shape(jax.grad(loss), 2.0, 1.5)


@BOTH
def test_a_family_without_a_decomposition_is_named(estimator):
    q = {"a": dist.Normal(0.0, 1.0), "b": dist.Laplace(0.0, 1.0)}
    with pytest.raises(TypeError, match=r"q\['b'\] must be Normal, .* got Laplace: use score_function instead"):
        jax.eval_shape(lambda key: estimator(lambda z, q: z["a"] + z["b"], q, key, 3), jax.random.key(0))


def test_measure_valued_takes_objectives_without_a_derivative():
    def loss(loc, key):
        return ESTIMATORS["coupled_measure_valued"](lambda z, q: (z > 0).astype(float), dist.Normal(loc, 1.0), key, 4)

    gradient = gradient_moments(loss, jnp.float32(0.3), jax.random.key(5), 20_000).gradient
    assert_unbiased(gradient.mean, gradient.mean_se, np.exp(-0.045) / np.sqrt(2 * np.pi), resolution=0.05)
