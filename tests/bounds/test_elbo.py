"""The importance-weighted bound against quadrature on a linear-Gaussian model, and the ELBO in two terms."""

import functools
import inspect
import operator
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

from gradient_moments import gradient_moments
from monte_carlo import USUAL, assert_unbiased, is_biased
from vae_jax import (
    distributions,
    doubly_reparameterized,
    elbo,
    elbo_terms,
    importance_weighted,
    kl_diagonal_gaussian,
)
from vae_jax.bounds import log_weights, plain
from vae_jax.estimators import ESTIMATORS

X = 1.5
PARAMS = {"model_loc": jnp.float32(0.3), "loc": jnp.float32(0.5), "scale": jnp.float32(0.8)}
GRADIENTS = [plain, doubly_reparameterized]


def log_prior(model_loc, z):
    return dist.Normal(model_loc, 1.0).log_prob(z)


def log_likelihood(z):
    return dist.Normal(z, 1.0).log_prob(X)


def log_joint(model_loc, z):
    """z ~ N(model_loc, 1), x ~ N(z, 1)."""
    return log_prior(model_loc, z) + log_likelihood(z)


LOG_EVIDENCE = norm.logpdf(X, 0.3, np.sqrt(2))


def bound(params, key, num_samples, gradient=plain):
    q = dist.Normal(params["loc"], params["scale"])
    return importance_weighted(partial(log_joint, params["model_loc"]), q, key, num_samples, gradient=gradient)


@functools.cache
def quadrature(num_nodes):
    nodes, masses = np.polynomial.hermite_e.hermegauss(num_nodes)
    return nodes, masses / masses.sum()


def exact_bound(params, num_samples, num_nodes=30):
    """E[log 1/K sum_k w_k] by a product of K Gauss-Hermite rules."""
    nodes, masses = quadrature(num_nodes)
    z = params["loc"] + params["scale"] * nodes
    weights = np.exp(
        norm.logpdf(z, params["model_loc"]) + norm.logpdf(X, z) - norm.logpdf(z, params["loc"], params["scale"])
    )
    mean_weight = functools.reduce(operator.add, np.meshgrid(*[weights] * num_samples, sparse=True)) / num_samples
    mass = functools.reduce(operator.mul, np.meshgrid(*[masses] * num_samples, sparse=True))
    return float((mass * np.log(mean_weight)).sum())


def exact_gradient(num_samples, step=1e-5):
    params = {name: float(value) for name, value in PARAMS.items()}

    def slope(name):
        ends = (exact_bound(params | {name: params[name] + sign * step}, num_samples) for sign in (1, -1))
        return operator.sub(*ends) / (2 * step)

    return {name: slope(name) for name in params}


def measured(gradient, num_samples, num_replicates=100_000):
    loss = partial(bound, num_samples=num_samples, gradient=gradient)
    return gradient_moments(loss, PARAMS, jax.random.key(0), num_replicates)


@pytest.mark.parametrize("num_samples", [2, 3])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_value_and_every_gradient_are_the_exact_ones(gradient, num_samples):
    value, slopes = measured(gradient, num_samples)
    assert_unbiased(value.mean, value.mean_se, exact_bound(PARAMS, num_samples), resolution=0.05)
    for name, exact in exact_gradient(num_samples).items():
        assert_unbiased(slopes.mean[name], slopes.mean_se[name], exact, resolution=0.1)


def test_the_bound_rises_with_the_samples_and_stays_below_the_evidence():
    keys = jax.random.split(jax.random.key(9), 20_000)
    values = [jax.jit(jax.vmap(lambda key, k=k: bound(PARAMS, key, k)))(keys) for k in (1, 2, 5, 20)]
    means, errors = np.mean(values, axis=1), np.std(values, axis=1) / np.sqrt(len(keys))
    assert np.all(np.diff(means) > 6 * np.hypot(errors[1:], errors[:-1]))
    assert np.all(means + 3 * errors < LOG_EVIDENCE)
    assert means[-1] == pytest.approx(LOG_EVIDENCE, abs=0.02)


def test_one_plain_sample_is_the_elbo():
    q = dist.Normal(PARAMS["loc"], PARAMS["scale"])

    @jax.jit
    def both(key):
        return bound(PARAMS, key, 1), elbo(partial(log_joint, PARAMS["model_loc"]), q, key, 1)

    importance_weighted_one, plain_elbo = both(jax.random.key(1))
    assert importance_weighted_one == pytest.approx(float(plain_elbo), rel=1e-6)


def test_double_reparameterization_lowers_the_variance_of_the_inference_gradient():
    usual, twice = (measured(gradient, 10, 20_000).gradient.variance for gradient in GRADIENTS)
    assert twice["loc"] < usual["loc"] / 3
    assert twice["scale"] < usual["scale"] / 3
    assert twice["model_loc"] == pytest.approx(float(usual["model_loc"]), rel=1e-3)


def test_values_agree_across_gradients():
    twice, usual = jax.jit(lambda key: [bound(PARAMS, key, 7, gradient) for gradient in GRADIENTS])(jax.random.key(2))
    assert twice == pytest.approx(float(usual), rel=1e-6)


def mean_of_logs(log_joint, q, key, num_samples):
    return log_weights(log_joint, q, key, num_samples).mean()


def no_log_count(log_joint, q, key, num_samples):
    return jax.nn.logsumexp(log_weights(log_joint, q, key, num_samples))


def unslowed(log_joint, q, key, num_samples):
    """Doubly reparameterized without the weight on the path."""
    held = jax.tree.map(jax.lax.stop_gradient, q)
    samples = distributions.rsample(q, key, num_samples)
    logs = jax.vmap(lambda z: log_joint(z) - held.log_prob(z))(samples)
    return jax.nn.logsumexp(logs) - jnp.log(num_samples)


def squared_for_the_model_too(log_joint, q, key, num_samples):
    """The squared weights on log p as a whole."""
    held = jax.tree.map(jax.lax.stop_gradient, q)
    samples = distributions.rsample(q, key, num_samples)
    logs = jax.vmap(lambda z: log_joint(z) - held.log_prob(z))(samples)
    return (jax.lax.stop_gradient(jax.nn.softmax(logs)) ** 2 * logs).sum()


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [(mean_of_logs, None), (no_log_count, None), (unslowed, "loc"), (squared_for_the_model_too, "model_loc")],
)
def test_negative_controls_are_caught(wrong, parameter):
    value, slopes = measured(wrong, 3)
    if parameter is None:
        assert is_biased(value.mean, value.mean_se, exact_bound(PARAMS, 3))
    else:
        assert is_biased(slopes.mean[parameter], slopes.mean_se[parameter], exact_gradient(3)[parameter])


def uncompiled(function):
    """As it is: one operation after another is then compiled by itself, which is slow."""
    return function


@pytest.mark.parametrize(
    ("gradient", "compiled"),
    [
        (plain, jax.jit),
        (doubly_reparameterized, jax.jit),
        pytest.param(plain, uncompiled, marks=pytest.mark.slow),
        pytest.param(doubly_reparameterized, uncompiled, marks=pytest.mark.slow),
    ],
)
def test_pytrees_and_transformations(gradient, compiled):
    x = jnp.arange(3.0)

    def loss(params, key):
        q = {"w": dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1), "s": dist.LogNormal(0.0, 0.1)}

        def log_joint(z):
            return dist.Normal(0.0, 1.0).expand([3]).to_event(1).log_prob(z["w"]) - z["s"] * ((x - z["w"]) ** 2).sum()

        return importance_weighted(log_joint, q, key, 5, gradient=gradient)

    params = {"loc": np.ones(3, np.float32), "log_scale": np.zeros(3, np.float32)}
    keys = jax.random.split(jax.random.key(3), 3)
    with jax.numpy_rank_promotion("allow"):
        one = compiled(jax.value_and_grad(loss))(params, keys[0])
        batch = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))(params, keys)
        ones = jax.tree.map(np.ones_like, params)
        _, forward = compiled(lambda params: jax.jvp(lambda p: loss(p, keys[0]), (params,), (ones,)))(params)
        with jax.enable_x64(True):
            double = jax.eval_shape(loss, jax.tree.map(lambda p: p.astype("float64"), params), keys[0])
    chex.assert_trees_all_close(one, jax.tree.map(lambda leaf: leaf[0], batch), rtol=2e-4, atol=1e-5)
    assert forward == pytest.approx(float(sum(np.sum(leaf) for leaf in jax.tree.leaves(one[1]))), rel=1e-4)
    assert (one[0].dtype, double.dtype) == (jnp.float32, jnp.float64)


def test_log_weights_of_a_shifted_posterior_are_normal():
    posterior_loc, posterior_scale, shift = (0.3 + X) / 2, np.sqrt(0.5), 0.4
    q = dist.Normal(posterior_loc + shift, posterior_scale)
    draw = jax.jit(lambda key: log_weights(partial(log_joint, 0.3), q, key, 100_000))
    logs = np.asarray(draw(jax.random.key(4)), np.float64)
    square = (shift / posterior_scale) ** 2
    assert_unbiased(logs.mean() - LOG_EVIDENCE, np.sqrt(square / 1e5), -square / 2, resolution=0.05)
    assert_unbiased(logs.var(), square * np.sqrt(2 / 1e5), square, resolution=0.05)


def test_log_weights_of_discrete_latents():
    def log_joint(z):
        return jnp.where(z == 1, jnp.log(0.6), jnp.log(0.1))

    logs = jax.jit(lambda key: log_weights(log_joint, dist.Bernoulli(probs=0.5), key, 1000))(jax.random.key(5))
    np.testing.assert_allclose(np.unique(np.round(np.exp(logs), 4)), [0.2, 1.2])
    weights = np.exp(np.asarray(logs, np.float64))
    assert_unbiased(weights.mean(), 0.5 / np.sqrt(1000), 0.7, resolution=0.3)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_have_one_signature(gradient):
    assert list(inspect.signature(gradient).parameters) == ["log_joint", "q", "key", "num_samples"]


def terms(params, key, estimator, num_samples, **divergence):
    q = dist.Normal(params["loc"], params["scale"])
    if not divergence:
        divergence = {"log_prior": partial(log_prior, params["model_loc"])}
    return elbo_terms(log_likelihood, q, key, num_samples, estimator=estimator, **divergence)


@pytest.mark.parametrize("name", USUAL)
def test_the_sampled_terms_make_the_elbo(name):
    estimator, key = ESTIMATORS[name], jax.random.key(6)

    def whole(params):
        q = dist.Normal(params["loc"], params["scale"])
        return elbo(partial(log_joint, params["model_loc"]), q, key, 5, estimator=estimator)

    def parts(params):
        return operator.sub(*terms(params, key, estimator, 5))

    expected, got = jax.jit(lambda params: [jax.value_and_grad(f)(params) for f in (whole, parts)])(PARAMS)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", USUAL)
def test_the_closed_form_terms_make_the_elbo(name):
    estimator, key = ESTIMATORS[name], jax.random.key(7)

    def kl(q):
        return kl_diagonal_gaussian(*(jnp.reshape(x, (1,)) for x in (q.loc, q.scale, 0.3, 1.0)))

    def whole(params):
        q = dist.Normal(params["loc"], params["scale"])
        return elbo(log_likelihood, q, key, 5, estimator=estimator, closed_form=lambda q: -kl(q))

    def parts(params):
        return operator.sub(*terms(params, key, estimator, 5, divergence=kl))

    expected, got = jax.jit(lambda params: [jax.value_and_grad(f)(params) for f in (whole, parts)])(PARAMS)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sticking_the_landing", "score_function+leave_one_out"])
def test_the_sampled_divergence_is_unbiased(name):
    def exact(params):
        shift = params["loc"] - params["model_loc"]
        return 0.5 * (params["scale"] ** 2 + shift**2 - 1) - jnp.log(params["scale"])

    def loss(params, key):
        return terms(params, key, ESTIMATORS[name], 4).divergence

    value, gradient = gradient_moments(loss, PARAMS, jax.random.key(8), 60_000)
    exact_value, exact_slopes = jax.jit(jax.value_and_grad(exact))(PARAMS)
    assert_unbiased(value.mean, value.mean_se, exact_value, resolution=0.1)
    for parameter, slope in exact_slopes.items():
        assert_unbiased(gradient.mean[parameter], gradient.mean_se[parameter], slope, resolution=0.2)


NORMAL = dist.Normal(0.0, 1.0)
POISSON = dist.Poisson(2.0)
MISUSES = [
    (ValueError, "must be given log_prior or divergence, got neither", lambda key: elbo_terms(
        log_likelihood, NORMAL, key, 3)),
    (ValueError, "must be given log_prior or divergence, got both", lambda key: elbo_terms(
        log_likelihood, NORMAL, key, 3, log_prior=log_likelihood, divergence=lambda q: jnp.zeros(()))),
    (ValueError, "num_samples must be at least 1, got 0", lambda key: importance_weighted(
        log_likelihood, NORMAL, key, 0)),
    (ValueError, "num_samples must be at least 1, got 0", lambda key: log_weights(log_likelihood, NORMAL, key, 0)),
    (TypeError, "q must be a distribution, got float", lambda key: log_weights(log_likelihood, 1.0, key, 3)),
    (TypeError, "q is a Poisson, which has no reparameterized sampler", lambda key: importance_weighted(
        log_likelihood, POISSON, key, 3)),
    (TypeError, "q is a Poisson, which has no reparameterized sampler", lambda key: importance_weighted(
        log_likelihood, POISSON, key, 3, gradient=doubly_reparameterized)),
    (ValueError, r"one scalar for one sample, got .* of shapes \[\(2,\)\]", lambda key: importance_weighted(
        lambda z: jnp.stack([z, z]), NORMAL, key, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), MISUSES)
def test_misuse_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call(jax.random.key(0))
