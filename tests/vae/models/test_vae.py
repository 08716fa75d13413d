"""The models against exact answers: a linear-Gaussian one by algebra, a hierarchical one by quadrature."""

import itertools
import math
from functools import lru_cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from monte_carlo import assert_unbiased
from vae_jax import kl_gaussian
from vae_jax.bounds import log_weights
from vae_jax.divergences import kl_standard_normal_log_scale
from vae_jax.vae.config.experiment import ModelConfig, ObjectiveConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.diagonal_gaussian import DiagonalGaussian
from vae_jax.vae.models.vae import TwoLayers
from vae_jax.vae.training.objectives import DivergenceWeights, batch_terms

KEY = jax.random.key(0)
SMALL = Architecture(ModelConfig(latent_size=3, hidden_sizes=(6,), activation="tanh"), (2, 4))
HIERARCHICAL = Architecture(
    ModelConfig(
        network="hierarchical", latent_size=1, hidden_sizes=(3,), top_latent_size=1, top_hidden_sizes=(3,),
        activation="tanh",
    ),
    (4,),
)  # fmt: skip
WEIGHTS = DivergenceWeights(jnp.ones(()), jnp.full((), 0.5))


@lru_cache
def first_params(architecture):
    return jax.jit(architecture.init)(jax.random.key(0))


def initial(architecture):
    """In containers of their own, for a test to change."""
    return jax.tree.map(lambda leaf: leaf, first_params(architecture))


def code_of(model, x):
    """The code of one image."""
    return jax.jit(lambda x: jax.tree.map(lambda leaf: leaf[0], model.encode(x[None])))(x)


# The divergence to the prior.


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_kl_of_the_prior_is_zero_and_that_of_twice_the_latents_is_twice_as_large(size):
    model = SMALL.bind(initial(SMALL))
    kl = jax.jit(lambda code: model.kl_by_latent(code, KEY))
    zeros = np.zeros(size, np.float32)
    assert not kl(DiagonalGaussian(zeros, zeros)).any()
    code = DiagonalGaussian(*np.linspace((-1, -2), 1, size, dtype=np.float32).T)
    once = kl(code)
    twice = kl(DiagonalGaussian(*(np.tile(leaf, 2) for leaf in code)))
    assert once.shape == (size,)
    assert twice.sum() == pytest.approx(2 * float(once.sum()), rel=1e-6)


LOG_SCALES = np.concatenate([sign * np.geomspace(1e-7, 40, 60, dtype=np.float32) for sign in (-1, 1)] + [np.zeros(1)])


def test_the_kl_in_float32_is_that_in_float64():
    def value_and_gradient(dtype):
        arguments = jnp.zeros(len(LOG_SCALES), dtype), jnp.asarray(LOG_SCALES, dtype)
        by_latent = jax.vmap(jax.value_and_grad(kl_standard_normal_log_scale, argnums=1))
        return jax.device_get(jax.jit(by_latent)(*arguments))

    value, gradient = value_and_gradient(jnp.float32)
    with jax.enable_x64(True):
        exact_value, exact_gradient = value_and_gradient(jnp.float64)
        # By the definition in extended precision, where it has digits to spare.
        twice = 2 * LOG_SCALES.astype(np.longdouble)
        far = np.abs(twice) > 0.05
        by_definition = (np.exp(twice[far]) - 1 - twice[far]) / 2
    np.testing.assert_allclose(exact_value[far], by_definition.astype(float), rtol=1e-13)
    near = ~far & (twice != 0)
    np.testing.assert_allclose(
        exact_value[near], (twice[near] ** 2 / 4 * (1 + twice[near] / 3)).astype(float), rtol=3e-4
    )
    np.testing.assert_allclose(value, exact_value, rtol=2e-6)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=2e-6)


def test_the_kl_has_second_derivatives():
    slope = jax.grad(lambda log_scale: kl_standard_normal_log_scale(jnp.zeros(()), log_scale))
    second = jax.jit(jax.vmap(jax.grad(slope)))
    log_scales = jnp.array([-1.0, -1e-3, 0.0, 1e-3, 1.0])
    np.testing.assert_allclose(second(log_scales), 2 * np.exp(2 * log_scales), rtol=1e-6)


# One layer of latents.


def test_a_code_of_log_variance_log_4_draws_with_scale_2():
    params = initial(SMALL)
    head = params["encoder"]["scale_head"]
    params["encoder"]["scale_head"] = {
        "kernel": jnp.zeros_like(head["kernel"]),
        "bias": jnp.full_like(head["bias"], math.log(4)),
    }
    model = SMALL.bind(params)
    code = code_of(model, jnp.full(8, 0.3))
    np.testing.assert_allclose(jnp.exp(code.log_scale), 2, rtol=1e-6)
    with jax.numpy_rank_promotion("allow"):
        draws = jax.jit(lambda code: model.posterior(code).sample(KEY, (40_000,)))(code)
    squares = (np.asarray(draws, float) - np.asarray(code.loc)) ** 2
    assert_unbiased(squares.mean(0), squares.std(0) / math.sqrt(len(squares)), 4, resolution=0.5)


@lru_cache
def compiled_terms(config):
    """The terms of five images and the gradient, as a function of the parameters."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, 8)), jnp.float32)

    def loss(params):
        terms = batch_terms(config, SMALL.bind(params), x, KEY, image_weights=jnp.ones(5), weights=WEIGHTS)
        return -terms.objective, terms

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.parametrize("log_variance", [-80.0, -40.0, 0.0, 40.0, 80.0])
@pytest.mark.parametrize("objective", [{}, {"kl": "sampled"}, {"objective": "geometric_js"}, {"objective": "iwae"}])
def test_extreme_log_variances_have_finite_values_and_gradients(log_variance, objective):
    params = initial(SMALL)
    bias = jnp.full_like(params["encoder"]["scale_head"]["bias"], log_variance)
    params["encoder"]["scale_head"] = params["encoder"]["scale_head"] | {"bias": bias}
    gradient, terms = compiled_terms(ObjectiveConfig(**objective))(params)
    assert np.isfinite(np.stack(terms)).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_elbo_in_float32_is_that_in_float64():
    architecture = Architecture(ModelConfig(), (28, 28))
    params = initial(architecture)
    generator = np.random.default_rng(0)
    x, noise = generator.integers(0, 2, (6, 784)), generator.normal(size=(6, 50)).astype(np.float32)

    def elbo_and_kl(params, x, noise):
        model = architecture.bind(params)

        def of_image(code, x, noise):
            kl = model.kl_by_latent(code, KEY).sum()
            return model.log_likelihood(x, code.loc + jnp.exp(code.log_scale) * noise) - kl, kl

        return jax.vmap(of_image)(model.encode(x), x, noise)

    def of_dtype(dtype):
        return jax.device_get(
            jax.jit(elbo_and_kl)(*jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, x, noise)))
        )

    elbo, kl = of_dtype(jnp.float32)
    with jax.enable_x64(True):
        exact_elbo, exact_kl = of_dtype(jnp.float64)
    np.testing.assert_allclose(elbo, exact_elbo, rtol=2e-6)
    np.testing.assert_allclose(kl, exact_kl, rtol=1e-5)


# p(x|z) = Normal(W z + b, s^2 I), whose evidence and posterior are known. The rows of W are orthogonal, so that the
# posterior is a diagonal Gaussian too.

SCALE = 0.3
ROWS = np.array([[0.5, -0.2, 0.1, 0.7], [0.4, 1.0, 0.0, 0.0]])
BIAS = np.array([0.1, 0.5, -0.3, 0.2])
X = np.array([0.9, 0.1, 0.4, 0.6])


def linear_gaussian():
    """A model with no hidden layer, whose decoder has the rows above, in float64."""
    config = ModelConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian", likelihood_scale=SCALE)
    architecture = Architecture(config, (4,))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initial(architecture))
    params["decoder"]["head"] = {"kernel": jnp.asarray(ROWS), "bias": jnp.asarray(BIAS)}
    return architecture.bind(params)


EVIDENCE = stats.multivariate_normal(BIAS, ROWS.T @ ROWS + SCALE**2 * np.eye(4)).logpdf(X)
POSTERIOR_COVARIANCE = np.linalg.inv(np.eye(2) + ROWS @ ROWS.T / SCALE**2)
POSTERIOR_LOC = POSTERIOR_COVARIANCE @ ROWS @ (X - BIAS) / SCALE**2


def standard_normal_nodes(num_axes, order=3):
    """Nodes and weights of a quadrature under independent standard normals; exact to degree 2 order - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    grid = np.array(list(itertools.product(nodes, repeat=num_axes)))
    return grid, np.prod(list(itertools.product(weights / weights.sum(), repeat=num_axes)), axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_the_evidence_is_the_elbo_and_the_divergence_from_the_posterior(float64, seed):
    model, generator = linear_gaussian(), np.random.default_rng(seed)
    code = DiagonalGaussian(jnp.asarray(generator.normal(size=2)), jnp.asarray(generator.normal(size=2)))
    nodes, weights = standard_normal_nodes(2)

    @jax.jit
    def elbo_and_divergence(code):
        samples = code.loc[None] + jnp.exp(code.log_scale)[None] * nodes
        log_likelihoods = jax.vmap(partial(model.log_likelihood, jnp.asarray(X)))(samples)
        to_posterior = kl_gaussian(
            code.loc, jnp.diag(jnp.exp(code.log_scale)), jnp.asarray(POSTERIOR_LOC),
            jnp.asarray(np.linalg.cholesky(POSTERIOR_COVARIANCE)),
        )  # fmt: skip
        return weights @ log_likelihoods - model.kl_by_latent(code, KEY).sum(), to_posterior

    elbo, to_posterior = elbo_and_divergence(code)
    assert to_posterior > 0.1
    assert float(elbo + to_posterior) == pytest.approx(EVIDENCE, rel=1e-12)


def test_at_the_posterior_every_sample_gives_the_evidence(float64):
    model = linear_gaussian()
    orthogonal = np.array([[0.5, -0.5, 0.5, 0.5], [0.5, 0.5, -0.5, 0.5]]) * np.array([[1.2], [0.8]])
    assert abs(orthogonal[0] @ orthogonal[1]) < 1e-15
    model.decoder.head.kernel[...] = jnp.asarray(orthogonal)
    evidence = stats.multivariate_normal(BIAS, orthogonal.T @ orthogonal + SCALE**2 * np.eye(4)).logpdf(X)
    variance = 1 / (1 + (orthogonal**2).sum(1) / SCALE**2)
    code = DiagonalGaussian(
        jnp.asarray(variance * (orthogonal @ (X - BIAS)) / SCALE**2), jnp.asarray(np.log(variance) / 2)
    )

    def log_joint(z):
        return model.log_likelihood(jnp.asarray(X), z) + model.log_prior(z)

    log_w = jax.jit(lambda code: log_weights(log_joint, model.posterior(code), KEY, 50))(code)
    np.testing.assert_allclose(log_w, evidence, rtol=1e-12)


# Two layers of latents, of size one each: expectations under q and p are integrals over a plane.


def on_the_plane(first, second):
    """A function of two numbers at all pairs of two rows of nodes."""
    return lambda function: np.asarray(jax.jit(jax.vmap(jax.vmap(function, (None, 0)), (0, None)))(first, second))


@pytest.fixture
def hierarchical(float64):
    return hierarchical_model()


def hierarchical_model():
    """A model of two layers and an image, in double precision."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initial(HIERARCHICAL))
    return HIERARCHICAL.bind(params), jnp.array([1.0, 0.0, 1.0, 1.0])


@lru_cache
def exact_terms(order=60):
    """E_q[log p(x|z)] and KL(q || p), by Gauss-Hermite quadrature."""
    model, x = hierarchical_model()
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    weights = weights / weights.sum()
    code = code_of(model, x)
    q = model.posterior(code)

    def of_noise(first, second):
        lower = code.loc + jnp.exp(code.log_scale) * first
        upper = model.upper_encoder(lower)
        z = TwoLayers(lower, upper.loc + jnp.exp(upper.log_scale) * second)
        return jnp.stack([model.log_likelihood(x, z), q.log_prob(z) - model.log_prior(z)])

    return tuple(weights @ np.moveaxis(on_the_plane(nodes, nodes)(of_noise), -1, 0) @ weights)


@lru_cache
def exact_evidence():
    """log p(x), by the trapezium rule."""
    model, x = hierarchical_model()
    grid = np.linspace(-12, 12, 601)

    def log_joint(lower, upper):
        z = TwoLayers(lower[None], upper[None])
        return model.log_likelihood(x, z) + model.log_prior(z)

    return np.log(np.exp(on_the_plane(grid, grid)(log_joint)).sum() * (grid[1] - grid[0]) ** 2)


@pytest.mark.slow
def test_the_hierarchical_bound_and_its_terms_are_unbiased(hierarchical):
    model, x = hierarchical
    (reconstruction, kl), evidence = exact_terms(), exact_evidence()
    np.testing.assert_allclose((reconstruction, kl), exact_terms(order=40), rtol=1e-4)
    assert kl > 0
    assert reconstruction - kl < evidence < 0
    code = code_of(model, x)

    def draws(key):
        by_latent = model.kl_by_latent(code, key)
        config = ObjectiveConfig(kl="sampled")
        terms = batch_terms(config, model, x[None], key, image_weights=jnp.ones(1), weights=WEIGHTS)
        return jnp.stack([terms.elbo, terms.kl, by_latent.sum()])

    rows = np.asarray(jax.jit(jax.vmap(draws))(jax.random.split(KEY, 20_000)))
    errors = rows.std(0) / math.sqrt(len(rows))
    assert_unbiased(rows.mean(0), errors, [reconstruction - kl, kl, kl], resolution=0.2)
    # The upper layer's part is in closed form, which takes noise away and leaves the mean.
    assert errors[2] < errors[1]


@pytest.mark.slow
def test_the_hierarchical_evidence_is_reached_by_importance_sampling(hierarchical):
    model, x = hierarchical
    evidence = exact_evidence()

    @jax.jit
    def weights_of(code):
        q = model.posterior(code)
        return jnp.exp(log_weights(lambda z: model.log_likelihood(x, z) + model.log_prior(z), q, KEY, 40_000))

    weights = np.asarray(weights_of(code_of(model, x)))
    assert_unbiased(weights.mean(), weights.std() / 200, np.exp(evidence), resolution=0.2 * np.exp(evidence))


def test_the_hierarchical_prior_s_draws_have_its_density(hierarchical):
    model, _ = hierarchical
    z = jax.jit(jax.vmap(model.sample_prior))(jax.random.split(KEY, 20_000))
    assert stats.kstest(z.upper[:, 0], stats.norm().cdf).pvalue > 1e-6
    given = jax.jit(model.lower_prior)(z.upper)
    noise = (np.asarray(z.lower) - given.loc) * np.exp(-np.asarray(given.log_scale))
    assert stats.kstest(noise[:, 0], stats.norm().cdf).pvalue > 1e-6


def test_hierarchical_means_are_those_of_the_draws(hierarchical):
    model, x = hierarchical
    code, keys = code_of(model, x), jax.random.split(KEY, 10_000)
    means = np.asarray(jax.jit(jax.vmap(model.latent_means, in_axes=(None, 0)))(code, keys))
    z = jax.jit(jax.vmap(lambda key: model.posterior(code).sample(key)))(keys)
    assert (means[:, 0] == code.loc[0]).all()
    difference = means[:, 1] - np.asarray(z.upper[:, 0])
    assert_unbiased(difference.mean(), difference.std() / 100, 0, resolution=0.3)


# Parameters and their binding.


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(SMALL, id="mlp"), pytest.param(HIERARCHICAL, id="hierarchical", marks=pytest.mark.slow)],
)
def test_compiled_and_over_seeds_it_is_what_it_is_eagerly(architecture):
    x = jnp.linspace(0, 1, math.prod(architecture.shape))[None]

    def outputs(params):
        model = architecture.bind(params)
        return model.encode(x), model.decode(model.sample_prior(KEY))

    keys = jax.random.split(KEY, 2)
    params = jax.jit(jax.vmap(architecture.init))(keys)
    chex.clear_trace_counter()
    compiled = jax.jit(jax.vmap(chex.assert_max_traces(outputs, n=1)))
    together = compiled(params)
    for seed in range(2):
        own, other = jax.tree.map(lambda leaf, seed=seed: leaf[seed], (params, together))
        chex.assert_trees_all_close(outputs(own), other, rtol=1e-5, atol=1e-6)
    compiled(jax.tree.map(lambda leaf: 2 * leaf, params))


def test_binding_leaves_the_parameters_as_they_are():
    params = initial(SMALL)
    before = jax.tree.map(np.array, params)
    first, second = SMALL.bind(params), SMALL.bind(jax.tree.map(jnp.zeros_like, params))
    assert not second.decode(jnp.ones(3)).any()
    assert first.decode(jnp.ones(3)).any()
    chex.assert_trees_all_equal(before, params)


def test_the_last_bias_starts_at_the_logit_of_the_mean_image():
    architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(5,), output_bias="data_mean"), (2, 2))
    mean = jnp.array([0.0, 0.25, 0.5, 1.0])
    bias = jax.jit(architecture.init)(KEY, mean)["decoder"]["head"]["bias"]
    np.testing.assert_allclose(jax.nn.sigmoid(bias), [0.001, 0.25, 0.5, 0.999], rtol=1e-4)
    with pytest.raises(ValueError, match="mean_image must be given with output_bias data_mean, got None"):
        architecture.init(KEY)


def test_a_gaussian_s_scale_is_learned_unless_it_is_given():
    config = ModelConfig(latent_size=2, hidden_sizes=(5,), likelihood="gaussian")
    params = jax.eval_shape(Architecture(config, (2, 2)).init, KEY)
    assert params["log_scale"].shape == ()
    fixed = Architecture(
        ModelConfig(latent_size=2, hidden_sizes=(5,), likelihood="gaussian", likelihood_scale=0.1), (2, 2)
    )
    assert "log_scale" not in jax.eval_shape(fixed.init, KEY)
    assert fixed.bind(initial(fixed)).likelihood.log_scale == pytest.approx(math.log(0.1))


def test_categorical_outputs_have_a_row_of_levels_for_each_pixel():
    architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(5,), likelihood="categorical"), (2, 2))
    model = architecture.bind(initial(architecture))
    assert model.decode(jnp.ones(2)).shape == (4, 256)
    assert model.log_likelihood(jnp.zeros(4), jnp.zeros(2)) == pytest.approx(-4 * math.log(256), rel=1e-6)
