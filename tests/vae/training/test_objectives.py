"""Each objective against its formula, and its gradient under every estimator."""

import math
from functools import lru_cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradient_moments import gradient_moments
from monte_carlo import USUAL, assert_unbiased, is_biased
from vae_jax import distributions, geometric_jensen_shannon
from vae_jax.bounds import log_weights
from vae_jax.divergences import dual_geometric_jensen_shannon
from vae_jax.vae.config.experiment import ModelConfig, ObjectiveConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.training.objectives import BatchTerms, DivergenceWeights, batch_terms, weighted_mean

KEY = jax.random.key(3)
TINY = Architecture(ModelConfig(latent_size=2, hidden_sizes=(5,), activation="tanh"), (2, 2))
PARAMS = jax.tree.map(lambda leaf: 2 * leaf, jax.jit(TINY.init)(jax.random.key(1)))
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, 4)), jnp.float32)
MODEL = TINY.bind(PARAMS)
CODES = jax.jit(MODEL.encode)(X)
KEYS = jax.random.split(KEY, len(X))


def weights(beta=1.0, alpha=0.5):
    return DivergenceWeights(jnp.asarray(beta), jnp.asarray(alpha))


def make_terms(**fields):
    config = ObjectiveConfig(**fields)

    def terms(params, x, key, image_weights, weights):
        return batch_terms(config, TINY.bind(params), x, key, image_weights=image_weights, weights=weights)

    return terms


@lru_cache
def compiled_terms(**fields):
    return jax.jit(make_terms(**fields))


def terms_of(params=PARAMS, *, x=X, key=KEY, image_weights=None, beta=1.0, alpha=0.5, **fields):
    image_weights = np.ones(len(x), np.float32) if image_weights is None else image_weights
    return compiled_terms(**fields)(params, x, key, image_weights, weights(beta, alpha))


@lru_cache
def samples(num_samples):
    """Draws of each image's objective [B, S, D], and the logits there."""

    def of_image(code, key):
        z = distributions.sample(MODEL.posterior(code), key, num_samples)
        return z, jax.vmap(MODEL.decode)(z)

    return jax.device_get(jax.jit(jax.vmap(of_image))(CODES, KEYS))


def closed_form_kl():
    """KL by image and latent [B, D], by the textbook formula."""
    loc, log_variance = np.asarray(CODES.loc, float), 2 * np.asarray(CODES.log_scale, float)
    return -(1 + log_variance - loc**2 - np.exp(log_variance)) / 2


def reconstructions(num_samples):
    """log p(x|z) of each image at each of its samples [B, S]."""
    logits = samples(num_samples)[1]
    x = np.asarray(X, float)[:, None]
    return (x * logits - np.logaddexp(0, logits)).sum(-1)


def sampled_kl(num_samples):
    z = np.asarray(samples(num_samples)[0], float)
    loc, log_scale = (np.asarray(leaf, float)[:, None] for leaf in CODES)
    return ((z**2 - ((z - loc) / np.exp(log_scale)) ** 2) / 2 - log_scale).sum(-1)


@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("kl", ["closed_form", "sampled"])
def test_the_elbo_is_its_formula(num_samples, kl):
    divergence = closed_form_kl().sum(1).mean() if kl == "closed_form" else sampled_kl(num_samples).mean()
    reconstruction = reconstructions(num_samples).mean()
    expected = BatchTerms(reconstruction - 3 * divergence, reconstruction - divergence, reconstruction, divergence)
    got = terms_of(kl=kl, num_samples=num_samples, beta=3.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_sampled_divergence_below_zero_is_not_clamped():
    """Clamped at zero it would be biased, most where q is near the prior."""
    terms = [terms_of(x=X[:1], key=key, kl="sampled") for key in jax.random.split(KEY, 20)]
    assert min(float(each.kl) for each in terms) < -0.1
    for each in terms:
        assert each.objective == pytest.approx(float(each.elbo), rel=1e-6)


def test_free_bits_are_of_the_batch_s_mean_and_not_of_an_image():
    """Latent 0 has KLs 0 and 0.5 in two images, latent 1 has 2 in both: with 0.3 nats free they count 0.3 + 2."""
    architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=()), (1,))
    shapes = jax.eval_shape(architecture.init, KEY)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params["encoder"]["loc_head"] = {"kernel": np.float32([[1.0, 0.0]]), "bias": np.float32([0.0, 2.0])}

    @jax.jit
    def terms(params):
        return batch_terms(
            ObjectiveConfig(free_bits=0.3), architecture.bind(params), jnp.array([[0.0], [1.0]]), KEY,
            image_weights=jnp.ones(2), weights=weights(),
        )  # fmt: skip

    got = terms(params)
    reconstruction = -math.log(2)
    np.testing.assert_allclose(got, (reconstruction - 2.3, reconstruction - 2.25, reconstruction, 2.25), rtol=1e-6)


def test_free_bits_leave_no_gradient_to_an_idle_latent():
    def slope(free_bits, loc):
        def objective(loc):
            params = PARAMS | {"encoder": PARAMS["encoder"] | {"loc_head": {
                "kernel": jnp.zeros((5, 2)), "bias": loc}}}  # fmt: skip
            terms = terms_of(params, free_bits=free_bits)
            return terms.objective - terms.reconstruction

        return jax.jit(jax.vmap(jax.grad(objective)))(np.asarray(loc, np.float32))

    with_free_bits = slope(2.0, [[0.0, 3.0], [0.1, 3.0]])
    assert with_free_bits[0, 1] == pytest.approx(-3, rel=1e-5)
    assert with_free_bits[1, 0] == 0
    assert slope(0.0, [[0.1, 3.0]])[0, 0] == pytest.approx(-0.1, rel=1e-5)


@lru_cache
def compiled_divergence(objective):
    divergence = {"geometric_js": geometric_jensen_shannon, "dual_geometric_js": dual_geometric_jensen_shannon}

    def of_image(code, alpha, middle):
        return divergence[objective](
            code.loc, jnp.exp(code.log_scale), jnp.zeros(2), jnp.ones(2), alpha=alpha, middle_alpha=middle
        )

    return jax.jit(jax.vmap(of_image, (0, None, None)))


@pytest.mark.parametrize("convention", ["nielsen", "deasy"])
@pytest.mark.parametrize("objective", ["geometric_js", "dual_geometric_js"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_geometric_jensen_shannon_takes_the_kl_s_place(objective, convention, alpha):
    middle = alpha if convention == "nielsen" else 1 - alpha
    by_image = np.asarray(compiled_divergence(objective)(CODES, np.float32(alpha), np.float32(middle)))
    reconstruction, kl = reconstructions(1).mean(), closed_form_kl().sum(1).mean()
    expected = reconstruction - 2 * np.mean(by_image), reconstruction - kl, reconstruction, kl
    got = terms_of(objective=objective, alpha_convention=convention, alpha=alpha, beta=2.0)
    np.testing.assert_allclose(got, expected, rtol=2e-5)
    if (objective, convention, alpha) in [("geometric_js", "deasy", 0.0), ("dual_geometric_js", "deasy", 1.0)]:
        np.testing.assert_allclose(np.mean(by_image), kl, rtol=1e-5)


def test_a_trained_alpha_has_the_gradient_of_finite_differences(float64):
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (PARAMS, X))

    @jax.jit
    @jax.value_and_grad
    def objective(alpha):
        return terms_of(params, x=x, objective="geometric_js", alpha=alpha).objective

    step = 1e-5
    (above, _), (below, _) = objective(0.3 + step), objective(0.3 - step)
    assert objective(0.3)[1] == pytest.approx(float(above - below) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("gradient", ["plain", "doubly_reparameterized"])
def test_the_importance_weighted_bound_is_its_formula(gradient):
    num_samples = 7
    log_w = reconstructions(num_samples) - sampled_kl(num_samples)
    bound = (np.logaddexp.reduce(log_w, axis=1) - math.log(num_samples)).mean()
    got = terms_of(objective="iwae", num_samples=num_samples, iwae_gradient=gradient)
    expected = bound, log_w.mean(), reconstructions(num_samples).mean(), sampled_kl(num_samples).mean()
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_of_one_sample_the_importance_weighted_bound_is_the_elbo():
    of_iwae, of_elbo = (
        jax.jit(jax.value_and_grad(lambda params, fields=fields: terms_of(params, **fields).objective))(PARAMS)
        for fields in ({"objective": "iwae"}, {"kl": "sampled"})
    )
    assert of_iwae[0] == pytest.approx(float(of_elbo[0]), rel=3e-7)
    chex.assert_trees_all_close(of_iwae[1], of_elbo[1], rtol=1e-4, atol=1e-6)


def test_the_importance_weighted_bound_rises_with_the_samples():
    """Over the same draws: each bound is the mean over the groups of its size, so that the rise is no chance."""

    @jax.jit
    @jax.vmap
    def bounds(key):
        log_w = jax.vmap(
            lambda code, x, key: log_weights(
                lambda z: MODEL.log_likelihood(x, z) + MODEL.log_prior(z), MODEL.posterior(code), key, 64
            )
        )(CODES, X, jax.random.split(key, len(X)))
        return jnp.stack(
            [
                (jax.nn.logsumexp(log_w.reshape(len(X), -1, size), axis=2) - math.log(size)).mean()
                for size in (1, 4, 16, 64)
            ]
        )

    rows = np.asarray(bounds(jax.random.split(KEY, 300)))
    assert (np.diff(rows, axis=1) >= -1e-6).all()

    one_key = jax.jit(jax.vmap(lambda key: terms_of(key=key, objective="iwae", num_samples=16).objective))
    drawn = np.asarray(one_key(jax.random.split(jax.random.key(9), 600)))
    error = math.hypot(drawn.std() / math.sqrt(600), rows[:, 2].std() / math.sqrt(300))
    assert_unbiased(drawn.mean() - rows[:, 2].mean(), error, 0, resolution=0.4)


def test_the_mean_over_unequal_batches_is_exact():
    """257 images in batches of 128: the last holds one image and 127 that only fill it up."""
    x = np.random.default_rng(1).integers(0, 2, (257, 4)).astype(np.float32)
    sums = np.zeros(4)
    for start in range(0, 257, 128):
        batch = x[start : start + 128]
        # What fills the batch up must not matter.
        filled = np.concatenate([batch, np.ones((128 - len(batch), 4), np.float32)])
        counted = np.float32(np.arange(128) < len(batch))
        sums += len(batch) * np.asarray(terms_of(x=filled, image_weights=counted), float)
    kl = jax.jit(lambda x: jax.vmap(lambda code: MODEL.kl_by_latent(code, KEY).sum())(MODEL.encode(x)))(x)
    assert sums[3] / 257 == pytest.approx(float(kl.mean()), rel=1e-6)
    assert weighted_mean(jnp.array([2.0, 5.0, 7.0]), jnp.array([1.0, 1.0, 0.0])) == 3.5
    last = terms_of(x=np.tile(x[256:], (128, 1)), image_weights=np.float32(np.arange(128) == 1))
    assert last.kl == pytest.approx(float(kl[256]), rel=1e-6)


# One latent and four pixels; the gradient of the whole loss by each estimator, through the encoder and the decoder.

LINEAR = Architecture(ModelConfig(latent_size=1, hidden_sizes=()), (4,))
LINEAR_PARAMS = jax.jit(LINEAR.init)(jax.random.key(2))


def vae_loss(config, params, key):
    terms = batch_terms(config, LINEAR.bind(params), X[:2], key, image_weights=jnp.ones(2), weights=weights())
    return -terms.objective


@pytest.fixture(scope="module")
def exact_gradient():
    """The exact mean by Gauss-Hermite quadrature over the latent, in float64."""
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(60)
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (LINEAR_PARAMS, X[:2]))

        def loss(params):
            model = LINEAR.bind(params)

            def of_image(code, x):
                z = code.loc[None] + jnp.exp(code.log_scale)[None] * nodes[:, None]
                log_likelihoods = jax.vmap(partial(model.log_likelihood, x))(z)
                kl = (jnp.exp(2 * code.log_scale) - 1 - 2 * code.log_scale + code.loc**2).sum() / 2
                return log_likelihoods @ (node_weights / node_weights.sum()) - kl

            return -jax.vmap(of_image)(model.encode(x), x).mean()

        return jax.device_get(jax.jit(jax.grad(loss))(params))


def leaves_of(config, exact_gradient):
    """Mean, standard error and exact value of each leaf of the gradient."""
    got = gradient_moments(partial(vae_loss, config), LINEAR_PARAMS, KEY, 4000).gradient
    # A part of the gradient with no noise is exact to rounding.
    errors = jax.tree.map(lambda error: np.asarray(error, float) + 1e-6, got.mean_se)
    return zip(*(jax.tree.leaves(tree) for tree in (got.mean, errors, exact_gradient)), strict=True)


@pytest.mark.parametrize("kl", ["closed_form", "sampled"])
@pytest.mark.parametrize("estimator", USUAL)
def test_every_estimator_has_the_exact_mean_gradient(exact_gradient, estimator, kl):
    config = ObjectiveConfig(kl=kl, estimator=estimator, num_samples=16)
    for mean, error, exact in leaves_of(config, exact_gradient):
        assert_unbiased(mean, error, exact, resolution=0.2)


def test_the_gradient_of_another_objective_would_fail_that_test(exact_gradient):
    config = ObjectiveConfig(num_samples=16, objective="iwae")
    assert any(is_biased(*leaf) for leaf in leaves_of(config, exact_gradient))


@pytest.mark.parametrize("gradient", ["plain", pytest.param("doubly_reparameterized", marks=pytest.mark.slow)])
def test_the_elbo_beside_the_importance_weighted_bound_costs_nothing(gradient):
    """Both evaluate the decoder at the same samples, which the compiler sees."""
    architecture = Architecture(ModelConfig(latent_size=8, hidden_sizes=(32,)), (64,))
    params, x = jax.jit(architecture.init)(KEY), jnp.zeros((4, 64))

    def flops(config, *, with_elbo):
        def loss(params, key):
            model = architecture.bind(params)
            terms = batch_terms(config, model, x, key, image_weights=jnp.ones(4), weights=weights())
            return -terms.objective, terms if with_elbo else None

        compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(params, KEY).compile()
        return compiled.cost_analysis()["flops"]

    config = ObjectiveConfig(objective="iwae", num_samples=20, iwae_gradient=gradient)
    assert flops(config, with_elbo=True) < 1.05 * flops(config, with_elbo=False)


@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "iwae", "num_samples": 3},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"kl": "sampled"}, marks=pytest.mark.slow),
        pytest.param({"objective": "dual_geometric_js"}, marks=pytest.mark.slow),
    ],
)
def test_compiled_it_is_what_it_is_eagerly_and_is_traced_once(fields):
    terms = make_terms(**fields)
    # Counted by where a function is defined.
    chex.clear_trace_counter()
    compiled = jax.jit(chex.assert_max_traces(terms, n=1))
    batch = jnp.ones(len(X)), weights()
    chex.assert_trees_all_close(compiled(PARAMS, X, KEY, *batch), terms(PARAMS, X, KEY, *batch), rtol=1e-5)
    compiled(PARAMS, X, jax.random.key(8), *batch)
