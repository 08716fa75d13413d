import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from linear_vae import (
    EXACT,
    HIERARCHICAL,
    IMAGES,
    LINEAR,
    LOG_EVIDENCE,
    ROUGH,
    X,
    exact_terms,
    linear_params,
    trained,
)
from monte_carlo import Z, assert_unbiased, is_biased
from vae_jax import bounds
from vae_jax.inference.diagnostics import tail_length
from vae_jax.inference.evidence import estimate_from_weights
from vae_jax.vae.results import image_likelihood
from vae_jax.vae.results.image_likelihood import (
    IMAGES_A_CALL,
    LEAST_CAPACITY,
    SAMPLES_AT_ONCE,
    image_log_evidence,
    image_weight_sums,
    model_log_evidence,
)
from vae_jax.vae.training.image_scores import make_score


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_the_exact_posterior_gives_the_exact_likelihood_of_every_image():
    result = image_log_evidence(LINEAR, EXACT, IMAGES, jax.random.key(0), num_importance_samples=10)
    np.testing.assert_allclose(result.log_evidence, LOG_EVIDENCE, atol=2e-4)
    np.testing.assert_allclose(result.effective_sample_size, 10, rtol=1e-4)
    np.testing.assert_allclose(result.log_evidence_se, 0, atol=3e-3)


@pytest.mark.parametrize("num_samples", [1, 7, 2000])
def test_the_estimate_of_the_likelihood_is_the_log_of_an_unbiased_mean(num_samples):
    """Not a mean of logs, nor a sum for a mean, nor a sample too many or too few."""
    num_repeats = 8000 // num_samples + 1
    repeat = jax.vmap(
        lambda key: image_log_evidence(LINEAR, ROUGH, IMAGES[:2], key, num_importance_samples=num_samples).log_evidence
    )
    estimates = np.asarray(repeat(jax.random.split(jax.random.key(0), num_repeats)), float)
    ratios = np.exp(estimates - LOG_EVIDENCE[:2])
    error = ratios.std(0, ddof=1) / math.sqrt(num_repeats)
    assert_unbiased(ratios.mean(0), error, 1, resolution=0.6)
    assert is_biased(ratios.mean(0), error, 1.2)


def test_one_sample_gives_the_elbo_and_more_samples_higher_bounds():
    key = jax.random.key(0)
    means, errors = [], []
    for num_samples in (1, 2, 20):
        repeat = jax.vmap(
            lambda key, k=num_samples: (
                image_log_evidence(LINEAR, ROUGH, IMAGES[:10], key, num_importance_samples=k).log_evidence
            )
        )
        of_images = np.asarray(repeat(jax.random.split(key, 400)), float)
        means.append(of_images.mean(0))
        errors.append(of_images.std(0, ddof=1) / 20)
    reconstruction, kl_by_latent, _ = exact_terms(0.5, 1.3)
    elbo = (reconstruction - kl_by_latent.sum(1))[:10]
    assert_unbiased(means[0], errors[0], elbo, resolution=1.0)
    assert is_biased(means[0], errors[0], elbo + 0.5)
    assert np.all(means[1] - means[0] > Z * errors[0] / 4)
    assert np.all(means[2] > means[1])
    assert np.all(means[2] < LOG_EVIDENCE[:10])


def test_the_standard_error_of_the_likelihood_is_calibrated():
    repeat = jax.vmap(lambda key: image_log_evidence(LINEAR, ROUGH, IMAGES[:10], key, num_importance_samples=500))
    results = repeat(jax.random.split(jax.random.key(0), 200))
    spread = np.asarray(results.log_evidence, float).std(0, ddof=1)
    reported = np.asarray(results.log_evidence_se, float).mean(0)
    assert np.all((spread / reported > 0.8) & (spread / reported < 1.25))
    assert np.all((results.effective_sample_size > 1) & (results.effective_sample_size < 500))
    assert 0.01 < reported.mean() < 0.1


def test_a_sum_over_chunks_is_that_over_all_samples():
    """The last chunk is cut short, and no chunk repeats another's draws."""
    num_samples, image, key = 2 * SAMPLES_AT_ONCE + 300, 3, jax.random.key(5)
    result = image_log_evidence(LINEAR, ROUGH, IMAGES[: image + 1], key, num_importance_samples=num_samples)
    model, x = LINEAR.bind(ROUGH), jnp.asarray(X[image], jnp.float32)
    log_joint = partial(lambda x, z: model.log_likelihood(x, z) + model.log_prior(z), x)
    image_key = jax.random.fold_in(key, image)

    @jax.jit
    @jax.vmap
    def weights_of_chunk(chunk):
        q = model.posterior(model.encode(x))
        return bounds.log_weights(log_joint, q, jax.random.fold_in(image_key, chunk), SAMPLES_AT_ONCE)

    chunks = weights_of_chunk(jnp.arange(3))
    log_w = np.concatenate([np.asarray(chunk, float) for chunk in chunks])[:num_samples]
    assert len(np.unique(log_w)) > 0.99 * num_samples
    log_ess = 2 * logsumexp(log_w) - logsumexp(2 * log_w)
    assert float(result.log_evidence[image]) == pytest.approx(logsumexp(log_w) - math.log(num_samples), abs=1e-5)
    assert float(result.effective_sample_size[image]) == pytest.approx(math.exp(log_ess), rel=1e-4)
    weights = np.exp(log_w - log_w.max())
    error = weights.std(ddof=1) / math.sqrt(num_samples) / weights.mean()
    assert float(result.log_evidence_se[image]) == pytest.approx(error, rel=1e-3)
    together = estimate_from_weights(jnp.asarray(log_w, jnp.float32))
    assert float(result.pareto_k[image]) == pytest.approx(float(together.pareto_k), abs=1e-3)
    assert bool(result.reliable[image]) == bool(together.reliable)


def test_the_effective_sample_size_of_one_sample_or_one_weight_is_one():
    one = image_log_evidence(LINEAR, ROUGH, IMAGES[:5], jax.random.key(0), num_importance_samples=1)
    assert one.effective_sample_size.tolist() == [1.0] * 5
    assert np.isposinf(one.log_evidence_se).all()
    assert not one.reliable.any()
    # Ten scales off, one sample has nearly all of the weight.
    far = linear_params(shift=10.0)
    result = image_log_evidence(LINEAR, far, IMAGES[:5], jax.random.key(0), num_importance_samples=100)
    assert np.all((result.effective_sample_size >= 1) & (result.effective_sample_size < 3))
    assert np.all(result.log_evidence_se > 0.5)
    assert not result.reliable.any()


@pytest.mark.slow
def test_the_tail_of_the_weights_tells_a_proposal_that_is_too_narrow():
    """Half as wide as the posterior, q has weights whose variance is infinite: k is 1 - 1 / 4."""
    narrow = linear_params(widening=0.5)
    found = image_log_evidence(LINEAR, narrow, IMAGES[:20], jax.random.key(0), num_importance_samples=20_000)
    assert np.median(found.pareto_k) > 0.6
    assert found.reliable.mean() < 0.5
    good = image_log_evidence(LINEAR, ROUGH, IMAGES[:20], jax.random.key(0), num_importance_samples=20_000)
    assert np.all(good.pareto_k < 0.4)
    assert good.reliable.all()


@pytest.mark.slow
def test_one_program_serves_every_number_of_samples_and_of_images(monkeypatch):
    chex.clear_trace_counter()
    once = chex.assert_max_traces(image_likelihood._weight_sums.__wrapped__, n=1)
    compiled = jax.jit(once, static_argnames=("architecture", "size", "capacity"))
    monkeypatch.setattr(image_likelihood, "_weight_sums", compiled)
    key, alone = jax.random.key(0), IMAGES[:5]
    for num_samples in (SAMPLES_AT_ONCE, 1500, 100_000):
        for num_images in (1, 5):
            found = image_log_evidence(
                LINEAR, ROUGH, alone, key, num_importance_samples=num_samples, num_images=num_images
            )
            assert np.isfinite(found.log_evidence).tolist() == [number < num_images for number in range(5)]
            assert np.isfinite(found.log_evidence_se[:num_images]).all()


def test_more_samples_than_one_program_serves_have_one_of_their_own():
    """An estimate's tail has all the weights that it needs, whatever the number of samples."""
    for num_samples in (LEAST_CAPACITY, LEAST_CAPACITY + 1):
        shapes = jax.eval_shape(
            lambda key, k=num_samples: image_weight_sums(LINEAR, ROUGH, IMAGES[:2], key, num_importance_samples=k),
            jax.random.key(0),
        )
        assert shapes.top.shape == (2, tail_length(2 ** math.ceil(math.log2(num_samples))) + 1)


@pytest.mark.slow
def test_a_hierarchical_model_is_scored_with_sampled_kls():
    binary = np.where(IMAGES[:40] > 127, 255, 0).astype(np.uint8)
    # Weights so small that no log weight has a heavy tail.
    params = jax.tree.map(lambda leaf: np.asarray(leaf) / 3, jax.jit(HIERARCHICAL.init)(jax.random.key(3)))
    scores = jax.device_get(make_score(HIERARCHICAL, binary, num_samples=200)(jax.random.key(0), params))
    assert scores.kl_by_latent.shape == (5,)
    # The latents' errors at most add up.
    assert_unbiased(scores.kl_by_latent.sum(), scores.kl_by_latent_se.sum(), scores.kl.mean(), resolution=2)

    def log_evidence(key, num_samples):
        return image_log_evidence(HIERARCHICAL, params, binary, key, num_importance_samples=num_samples).log_evidence

    one = jax.vmap(partial(log_evidence, num_samples=1))
    bounds_of_one = np.asarray(one(jax.random.split(jax.random.key(1), 200)), float)
    differences = bounds_of_one.mean(0) - scores.elbo
    assert_unbiased(differences.mean(), differences.std(ddof=1) / math.sqrt(40), 0, resolution=1)
    assert np.mean(log_evidence(jax.random.key(2), 200)) > scores.elbo.mean() + 0.01


def test_importance_sampling_in_calls_counts_every_image(monkeypatch):
    """257 images in calls of 100, of which the last has 57."""
    assert len(IMAGES) % IMAGES_A_CALL
    shares = []
    result = model_log_evidence(
        trained(EXACT), IMAGES, jax.random.key(0), num_importance_samples=3, on_progress=shares.append
    )
    np.testing.assert_allclose(result.log_evidence, LOG_EVIDENCE, atol=2e-4)
    assert shares == pytest.approx([100 / 257, 200 / 257, 1])
    rough = model_log_evidence(
        trained(ROUGH), np.repeat(IMAGES[:1], 150, axis=0), jax.random.key(0), num_importance_samples=3
    )
    assert len(np.unique(rough.log_evidence)) > 140


def test_fewer_images_than_a_call_has_are_enough():
    result = model_log_evidence(trained(EXACT), IMAGES[:2], jax.random.key(0), num_importance_samples=3)
    np.testing.assert_allclose(result.log_evidence, LOG_EVIDENCE[:2], atol=2e-4)
