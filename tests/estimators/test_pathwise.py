"""Paths: implicit ones through NumPyro's samplers, quantile functions, closed-form entropies, and what has no path."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.scipy.special import digamma
from numpyro.distributions import constraints
from scipy.special import polygamma

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased
from vae_jax import distributions, elbo
from vae_jax.estimators import (
    closed_form_entropy,
    gumbel_softmax,
    inverse_cdf,
    pathwise,
    rebar,
    relax,
    sticking_the_landing,
    straight_through,
)
from vae_jax.estimators.quantiles import midpoints, quantiles
from vae_jax.inference import FullRankNormal

DIRICHLET = jnp.array([1.5, 0.7, 2.0])

IMPLICIT = {
    "gamma_mean": (dist.Gamma, lambda z: z, (1.7, 1.0), lambda a, b: a / b),
    "gamma_log": (dist.Gamma, jnp.log, (1.7, 1.0), lambda a, b: digamma(a) - jnp.log(b)),
    "gamma_square": (dist.Gamma, lambda z: z**2, (0.6, 2.0), lambda a, b: a * (a + 1) / b**2),
    "beta_mean": (dist.Beta, lambda z: z, (1.5, 2.5), lambda a, b: a / (a + b)),
    "beta_log": (dist.Beta, jnp.log, (1.5, 2.5), lambda a, b: digamma(a) - digamma(a + b)),
    "student_square": (
        lambda df, loc, scale: dist.StudentT(df, loc, scale), lambda z: z**2, (14.0, 0.5, 1.2),
        lambda df, loc, scale: loc**2 + scale**2 * df / (df - 2),
    ),
    "dirichlet": (
        dist.Dirichlet, lambda z: jnp.array([0.3, -1.0, 2.0]) @ z, (DIRICHLET,),
        lambda a: jnp.array([0.3, -1.0, 2.0]) @ a / a.sum(),
    ),
}  # fmt: skip


QUICK = {"gamma_square", "student_square", "dirichlet"}
"""One of a scalar, of several parameters and of a vector: NumPyro's samplers reject, which takes long."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in IMPLICIT]
)
def test_implicit_reparameterization_is_unbiased(name):
    family, function, params, exact = IMPLICIT[name]
    params = tuple(jnp.asarray(value) for value in params)

    def loss(params, key):
        return pathwise(lambda z, _: function(z), family(*params), key, 4)

    value, gradient = gradient_moments(loss, params, jax.random.key(0), 30_000, at_once=15_000)
    exact_value, slopes = jax.jit(jax.value_and_grad(lambda params: exact(*params)))(params)
    assert_unbiased(value.mean, value.mean_se, exact_value, resolution=0.2)
    for mean, error, slope in zip(gradient.mean, gradient.mean_se, slopes, strict=True):
        assert_unbiased(mean, error, slope, resolution=0.2)


def test_the_exact_slopes_are_the_published_ones():
    assert float(jax.grad(IMPLICIT["gamma_log"][3])(1.7, 1.0)) == pytest.approx(polygamma(1, 1.7), rel=1e-5)
    assert float(jax.grad(IMPLICIT["gamma_square"][3])(0.6, 1.0)) == pytest.approx(2 * 0.6 + 1, rel=1e-5)


QUANTILES = {
    "exponential": (dist.Exponential, (1.5,), lambda rate: 2 / rate**2),
    "laplace": (dist.Laplace, (0.5, 0.8), lambda loc, scale: loc**2 + 2 * scale**2),
    "log_normal": (dist.LogNormal, (0.1, 0.3), lambda loc, scale: jnp.exp(2 * loc + 2 * scale**2)),
    "vector": (
        lambda loc, scale: dist.Normal(jnp.stack([loc, 2 * loc]), scale).to_event(1), (0.5, 0.8),
        lambda loc, scale: 5 * loc**2 + 2 * scale**2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUANTILES)
def test_inverse_cdf_is_unbiased(name):
    family, params, exact = QUANTILES[name]
    params = tuple(jnp.asarray(value) for value in params)

    def loss(params, key):
        return inverse_cdf(lambda z, _: (z**2).sum(), family(*params), key, 4)

    gradient = gradient_moments(loss, params, jax.random.key(1), 60_000).gradient
    slopes = jax.jit(jax.grad(lambda params: exact(*params)))(params)
    for mean, error, slope in zip(gradient.mean, gradient.mean_se, slopes, strict=True):
        assert_unbiased(mean, error, slope, resolution=0.3)


def test_quantiles_of_a_fair_generator_have_the_distribution():
    def keep(z, _):
        return z

    draw = jax.jit(jax.vmap(lambda key: inverse_cdf(keep, dist.Exponential(2.0), key, 1)))
    values = draw(jax.random.split(jax.random.key(2), 20_000))
    draws = np.sort(np.asarray(values))
    # The Kolmogorov-Smirnov distance, whose level of 1e-6 is 2.7 / sqrt(n).
    steps = np.arange(1, len(draws) + 1) / len(draws)
    assert np.abs(1 - np.exp(-2 * draws) - steps).max() < 2.7 / np.sqrt(len(draws))


@pytest.mark.parametrize(
    ("q", "instead"),
    [
        (dist.Gamma(2.0, 1.0), "pathwise"),
        (dist.Bernoulli(logits=0.3), "score_function"),
        (dist.DiscreteUniform(0, 3), "score_function"),
    ],
)
def test_a_distribution_without_quantiles_is_refused(q, instead):
    with pytest.raises(TypeError, match=rf"q must be continuous with a quantile .*: use {instead} instead"):
        inverse_cdf(lambda z, _: z, q, jax.random.key(0), 3)


@pytest.mark.parametrize(
    "q", [dist.Normal(0.0, 1.0).expand([3]).to_event(1), dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2)]
)
def test_expanded_and_nested_vectors_have_quantiles(q):
    value = jax.jit(lambda key: inverse_cdf(lambda z, _: (z**2).sum(), q, key, 3))(jax.random.key(0))
    assert value.shape == ()
    assert value > 0


def test_no_uniform_draw_has_an_infinite_quantile():
    with jax.numpy_rank_promotion("allow"):
        ends = np.array([0, 2**32 - 1], np.uint32)
        assert np.isfinite(jax.jit(lambda ends: quantiles(dist.HalfNormal(1.0), midpoints(ends)))(ends)).all()


def test_closed_form_entropy_is_the_elbo_with_its_entropy():
    params = {"loc": jnp.float32(0.4), "scale": jnp.float32(0.7)}

    def log_joint(z):
        return dist.Normal(1.0, 2.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(0.3)

    def loss(params, key, **options):
        return elbo(log_joint, dist.Normal(params["loc"], params["scale"]), key, 5, **options)

    key = jax.random.key(3)
    ours = jax.jit(jax.value_and_grad(partial(loss, estimator=closed_form_entropy)))(params, key)
    given = jax.jit(jax.value_and_grad(partial(loss, closed_form=distributions.entropy)))(params, key)
    np.testing.assert_allclose(ours[0], given[0], rtol=1e-5)
    chex.assert_trees_all_close(ours[1], given[1], rtol=1e-4)


def test_a_distribution_without_an_entropy_is_refused():
    with pytest.raises(TypeError, match="q must have an entropy in closed form, got Poisson"):
        distributions.entropy(dist.Poisson(2.0))


FLAT = {
    "comparison": lambda z, q: (z["b"] > 0) + z["a"],
    "rounding": lambda z, q: jnp.round(z["b"]) * z["a"],
    "stopped": lambda z, q: jax.lax.stop_gradient(z["b"]) + z["a"],
    "integer": lambda z, q: z["a"] + z["b"].astype(int),
    "condition": lambda z, q: jax.lax.cond(z["b"] > 0, lambda: z["a"], lambda: 2 * z["a"]),
}


@pytest.mark.parametrize("estimator", [pathwise, sticking_the_landing, closed_form_entropy, inverse_cdf])
@pytest.mark.parametrize("name", FLAT)
def test_an_objective_without_a_derivative_is_refused_and_the_latent_named(name, estimator):
    q = {"a": dist.Normal(0.0, 1.0), "b": dist.Normal(0.0, 1.0)}
    objective = FLAT[name]
    if estimator is closed_form_entropy:
        # What it adds, log q, has a derivative.
        return
    with pytest.raises(TypeError, match=r"objective must be differentiable in q\['b'\].*use score_function"):
        jax.eval_shape(lambda key: estimator(objective, q, key, 3), jax.random.key(0))


def test_a_latent_of_a_joint_distribution_is_named_by_its_path():
    family = FullRankNormal({"a": constraints.real, "b": constraints.positive})

    def estimate(key):
        return pathwise(FLAT["rounding"], family.distribution(family.init(key)), key, 3)

    with pytest.raises(TypeError, match=r"objective must be differentiable in q\['b'\]"):
        jax.eval_shape(estimate, jax.random.key(0))


@pytest.mark.parametrize(
    "objective",
    [
        lambda z, q: jax.nn.relu(z["a"]) + jnp.abs(z["b"]),
        lambda z, q: jnp.where(z["b"] > 0, z["b"], 0) + jnp.sort(jnp.stack([z["a"], z["b"]]))[0],
        lambda z, q: 1.0,
        lambda z, q: z["a"],
    ],
)
def test_what_is_flat_in_places_or_unused_is_taken(objective):
    q = {"a": dist.Normal(0.0, 1.0), "b": dist.Normal(0.0, 1.0)}
    estimate = jax.jit(lambda key: pathwise(lambda z, q: jnp.asarray(objective(z, q)), q, key, 3))
    assert np.isfinite(estimate(jax.random.key(0)))


@pytest.mark.parametrize("estimator", [rebar, gumbel_softmax, straight_through])
def test_a_relaxation_refuses_an_objective_that_is_flat_between_the_outcomes(estimator):
    q = {"a": dist.Bernoulli(logits=0.3), "b": dist.Bernoulli(logits=0.1)}
    with pytest.raises(TypeError, match=r"objective must be differentiable in q\['b'\].*use relax, or disarm"):
        jax.eval_shape(
            lambda key: estimator(lambda z, _: z["a"] + jnp.where(z["b"] > 0.5, 1.0, 0.0), q, key, 4), jax.random.key(0)
        )


def test_relax_refuses_a_surrogate_that_is_flat_and_takes_such_an_objective():
    q = dist.Bernoulli(logits=0.3)

    def flat(z):
        return jnp.where(z > 0.5, 1.0, 0.0)

    with pytest.raises(TypeError, match=r"surrogate must be differentiable in q, .* use a smooth surrogate"):
        jax.eval_shape(lambda key: relax(lambda z, _: z, q, key, 4, surrogate=flat), jax.random.key(0))
    estimate = jax.jit(lambda key: relax(lambda z, _: flat(z), q, key, 4, surrogate=lambda z: z**2))
    assert np.isfinite(estimate(jax.random.key(0)))


def test_an_objective_that_calls_back_into_python_is_refused():
    def objective(z, q):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), z)

    with pytest.raises(TypeError, match=r"got one that JAX cannot differentiate .* use score_function"):
        pathwise(objective, dist.Normal(0.0, 1.0), jax.random.key(0), 3)
