import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from monte_carlo import Z, assert_unbiased, is_biased
from vae_jax import bounds
from vae_jax.inference.diagnostics import tail_length
from vae_jax.inference.evidence import EvidenceEstimate, estimate_from
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, TrainingConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.results import image_likelihood
from vae_jax.vae.results import score_summary as summary
from vae_jax.vae.results.image_likelihood import (
    LEAST_CAPACITY,
    SAMPLES_AT_ONCE,
    image_log_evidence,
    image_weight_sums,
)
from vae_jax.vae.results.score_summary import elbo_summary, importance_sampled, nll_summary, scores_of
from vae_jax.vae.results.trained_model import TrainedModel
from vae_jax.vae.training.image_scores import Scores, make_score
from vae_jax.vae.training.training_loop import Learned

SHAPE, SCALE = (2, 3), 0.5
LINEAR = Architecture(ModelConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian", likelihood_scale=SCALE), SHAPE)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (257, 6), dtype=np.uint8)
X = IMAGES / 255
DIRECTIONS = np.linalg.qr(GENERATOR.standard_normal((6, 2)))[0].T * np.array([[1.5], [0.4]])
"""Orthogonal, so that the exact posterior is diagonal: p(x|z) = Normal(z @ DIRECTIONS + OFFSET, SCALE)."""
OFFSET = np.full(6, 0.5)
PRECISION = 1 + (DIRECTIONS**2).sum(1) / SCALE**2


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


def linear_params(*, shift=0.0, widening=1.0):
    """The exact posterior, or one whose means are shifted by so many scales and whose scales are wider."""
    kernel = DIRECTIONS.T / SCALE**2 / PRECISION
    content = {
        "encoder": {
            "loc_head": {"kernel": kernel, "bias": shift / np.sqrt(PRECISION) - OFFSET @ kernel},
            "scale_head": {"kernel": np.zeros((6, 2)), "bias": 2 * math.log(widening) - np.log(PRECISION)},
        },
        "decoder": {"head": {"kernel": DIRECTIONS, "bias": OFFSET}},
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), content)


EXACT = linear_params()
ROUGH = linear_params(shift=0.5, widening=1.3)
LOG_EVIDENCE = stats.multivariate_normal(OFFSET, DIRECTIONS.T @ DIRECTIONS + SCALE**2 * np.eye(6)).logpdf(X)


def exact_terms(shift, widening):
    """E_q[log p(x|z)] of every image, and its KL by latent."""
    variances = widening**2 / PRECISION
    means = (X - OFFSET) @ DIRECTIONS.T / SCALE**2 / PRECISION + shift / np.sqrt(PRECISION)
    squares = ((X - OFFSET - means @ DIRECTIONS) ** 2).sum(1) + variances @ (DIRECTIONS**2).sum(1)
    reconstruction = -squares / 2 / SCALE**2 - 6 * math.log(SCALE * math.sqrt(2 * math.pi))
    return reconstruction, (means**2 + variances - 1 - np.log(variances)) / 2, means


@pytest.fixture(scope="module")
def rough_scores():
    """Of more images than are scored at once, many samples of each."""
    return jax.device_get(make_score(LINEAR, IMAGES, num_samples=400)(jax.random.key(0), ROUGH))


def test_the_score_of_every_image_is_that_of_its_formulas(rough_scores):
    reconstruction, kl_by_latent, means = exact_terms(0.5, 1.3)
    kl = kl_by_latent.sum(1)
    np.testing.assert_allclose(rough_scores.kl, kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rough_scores.elbo, rough_scores.reconstruction - rough_scores.kl, rtol=1e-5)
    # The spread of log p(x|z) over q is below 2 nats for every image.
    assert_unbiased(rough_scores.reconstruction, np.full(257, 2 / math.sqrt(400)), reconstruction, resolution=1.5)
    errors = rough_scores.reconstruction - reconstruction
    assert_unbiased(errors.mean(), errors.std(ddof=1) / math.sqrt(257), 0, resolution=0.1)
    np.testing.assert_allclose(rough_scores.kl_by_latent, kl_by_latent.mean(0), rtol=1e-4)
    np.testing.assert_allclose(rough_scores.kl_by_latent_se, stats.sem(kl_by_latent), rtol=1e-3)
    np.testing.assert_allclose(rough_scores.variance_of_means, means.var(0, ddof=1), rtol=1e-3)


def test_each_image_has_noise_of_its_own():
    same = make_score(LINEAR, np.repeat(IMAGES[:1], 255, axis=0))(jax.random.key(0), ROUGH)
    assert len(np.unique(same.reconstruction)) > 250


def test_a_fixed_key_fixes_the_scores_and_another_key_moves_them():
    score = make_score(LINEAR, IMAGES[:20])
    first, again, other = (score(jax.random.key(seed), ROUGH).elbo for seed in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_a_dead_latent_is_not_active():
    params = linear_params()
    loc_head = params["encoder"]["loc_head"]
    loc_head["kernel"] = loc_head["kernel"].at[:, 1].set(0.0)
    scores = make_score(LINEAR, IMAGES)(jax.random.key(0), params)
    assert scores.active.tolist() == [True, False]
    # A variance of 0.01 divides them.
    spread = float(scores.variance_of_means[0])
    for variance, active in ((0.0098, False), (0.0102, True)):
        loc_head["kernel"] = loc_head["kernel"].at[:, 1].set(loc_head["kernel"][:, 0] * math.sqrt(variance / spread))
        assert make_score(LINEAR, IMAGES)(jax.random.key(0), params).active.tolist() == [True, active]


def test_scores_of_several_seeds_are_each_ones():
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), EXACT, ROUGH)
    keys = jax.random.split(jax.random.key(0), 2)
    both = make_score(LINEAR, IMAGES, num_seeds=2)(keys, stacked)
    for seed, params in enumerate((EXACT, ROUGH)):
        alone = make_score(LINEAR, IMAGES)(keys[seed], params)
        jax.tree.map(
            lambda of_both, leaf, n=seed: np.testing.assert_allclose(of_both[n], leaf, rtol=1e-4, atol=1e-4),
            both,
            alone,
        )


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
                image_log_evidence(LINEAR, ROUGH, IMAGES[:20], key, num_importance_samples=k).log_evidence
            )
        )
        of_images = np.asarray(repeat(jax.random.split(key, 400)), float)
        means.append(of_images.mean(0))
        errors.append(of_images.std(0, ddof=1) / 20)
    reconstruction, kl_by_latent, _ = exact_terms(0.5, 1.3)
    elbo = (reconstruction - kl_by_latent.sum(1))[:20]
    assert_unbiased(means[0], errors[0], elbo, resolution=1.0)
    assert is_biased(means[0], errors[0], elbo + 0.5)
    assert np.all(means[1] - means[0] > Z * errors[0] / 4)
    assert np.all(means[2] > means[1])
    assert np.all(means[2] < LOG_EVIDENCE[:20])


def test_the_standard_error_of_the_likelihood_is_calibrated():
    repeat = jax.vmap(lambda key: image_log_evidence(LINEAR, ROUGH, IMAGES[:20], key, num_importance_samples=500))
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
    chunks = [
        bounds.log_weights(
            log_joint, model.posterior(model.encode(x)), jax.random.fold_in(image_key, chunk), SAMPLES_AT_ONCE
        )
        for chunk in range(3)
    ]
    log_w = np.concatenate([np.asarray(chunk, float) for chunk in chunks])[:num_samples]
    assert len(np.unique(log_w)) > 0.99 * num_samples
    log_ess = 2 * logsumexp(log_w) - logsumexp(2 * log_w)
    assert float(result.log_evidence[image]) == pytest.approx(logsumexp(log_w) - math.log(num_samples), abs=1e-5)
    assert float(result.effective_sample_size[image]) == pytest.approx(math.exp(log_ess), rel=1e-4)
    weights = np.exp(log_w - log_w.max())
    error = weights.std(ddof=1) / math.sqrt(num_samples) / weights.mean()
    assert float(result.log_evidence_se[image]) == pytest.approx(error, rel=1e-3)
    together = estimate_from(jnp.asarray(log_w, jnp.float32))
    assert float(result.pareto_k[image]) == pytest.approx(float(together.pareto_k), abs=1e-3)
    assert bool(result.reliable[image]) == bool(together.reliable)


def test_the_effective_sample_size_of_one_sample_or_one_weight_is_one():
    one = image_log_evidence(LINEAR, ROUGH, IMAGES[:5], jax.random.key(0), num_importance_samples=1)
    assert one.effective_sample_size.tolist() == [1.0] * 5
    assert np.isnan(one.log_evidence_se).all()
    assert not one.reliable.any()
    # Ten scales off, one sample has nearly all of the weight.
    far = linear_params(shift=10.0)
    result = image_log_evidence(LINEAR, far, IMAGES[:5], jax.random.key(0), num_importance_samples=100)
    assert np.all((result.effective_sample_size >= 1) & (result.effective_sample_size < 3))
    assert np.all(result.log_evidence_se > 0.5)
    assert not result.reliable.any()


def test_the_tail_of_the_weights_tells_a_proposal_that_is_too_narrow():
    """Half as wide as the posterior, q has weights whose variance is infinite: k is 1 - 1 / 4."""
    narrow = linear_params(widening=0.5)
    found = image_log_evidence(LINEAR, narrow, IMAGES[:20], jax.random.key(0), num_importance_samples=20_000)
    assert np.median(found.pareto_k) > 0.6
    assert found.reliable.mean() < 0.5
    good = image_log_evidence(LINEAR, ROUGH, IMAGES[:20], jax.random.key(0), num_importance_samples=20_000)
    assert np.all(good.pareto_k < 0.4)
    assert good.reliable.all()


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


HIERARCHICAL = Architecture(
    ModelConfig(network="hierarchical", latent_size=3, hidden_sizes=(4,), top_latent_size=2, top_hidden_sizes=(4,)),
    SHAPE,
)


def test_a_hierarchical_model_is_scored_with_sampled_kls():
    binary = np.where(IMAGES[:40] > 127, 255, 0).astype(np.uint8)
    # Weights so small that no log weight has a heavy tail.
    params = jax.tree.map(lambda leaf: leaf / 3, HIERARCHICAL.init(jax.random.key(3)))
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


def trained(params, num_seeds=1):
    model, data = LINEAR.config, DataConfig(binarization="none")
    return TrainedModel(
        Experiment(data, model, training=TrainingConfig(), num_seeds=num_seeds), SHAPE, 7, Learned(params, None)
    )


def test_importance_sampling_in_calls_counts_every_image(monkeypatch):
    """257 images in calls of 100, of which the last has 57."""
    assert len(IMAGES) % summary.IMAGES_A_CALL
    shares = []
    result = importance_sampled(
        trained(EXACT), IMAGES, jax.random.key(0), num_importance_samples=3, on_progress=shares.append
    )
    np.testing.assert_allclose(result.log_evidence, LOG_EVIDENCE, atol=2e-4)
    assert shares == pytest.approx([100 / 257, 200 / 257, 1])
    rough = importance_sampled(
        trained(ROUGH), np.repeat(IMAGES[:1], 150, axis=0), jax.random.key(0), num_importance_samples=3
    )
    assert len(np.unique(rough.log_evidence)) > 140


def test_fewer_images_than_a_call_has_are_enough():
    result = importance_sampled(trained(EXACT), IMAGES[:2], jax.random.key(0), num_importance_samples=3)
    np.testing.assert_allclose(result.log_evidence, LOG_EVIDENCE[:2], atol=2e-4)


def test_the_summary_of_one_model_has_errors_over_images(rough_scores):
    found = elbo_summary(rough_scores, "test")
    for term in ("elbo", "reconstruction", "kl"):
        values = np.asarray(getattr(rough_scores, term), float)
        assert found[f"test_{term}"] == pytest.approx(values.mean())
        assert found[f"test_{term}_se"] == pytest.approx(values.std(ddof=1) / math.sqrt(257))
    assert found["active_units"] == 2
    assert found["num_images"] == 257
    assert found["num_latents"] == len(found["kl_by_latent"]) == len(found["kl_by_latent_se"]) == 2
    assert "test_elbo_interval" not in found


def fake_scores(elbo):
    elbo = np.asarray(elbo, np.float32)
    by_latent = np.ones((*elbo.shape[:-1], 2), np.float32)
    return Scores(
        elbo, elbo - 1, np.full_like(elbo, -1), by_latent, by_latent, by_latent * np.array([1, 0.001], np.float32)
    )


def test_the_summary_of_several_models_has_errors_and_an_interval_over_them():
    found = elbo_summary(fake_scores([[1, 3], [2, 4], [6, 8]]), "validation")
    # Means 2, 3 and 7: their mean is 4 and their variance 7.
    assert found["validation_elbo_by_seed"] == [2, 3, 7]
    assert found["validation_elbo"] == 4
    error = math.sqrt(7 / 3)
    assert found["validation_elbo_se"] == pytest.approx(error)
    # 4.303 is the 97.5% quantile of Student's t with 2 degrees of freedom.
    assert found["validation_elbo_interval"] == pytest.approx([4 - 4.3027 * error, 4 + 4.3027 * error], rel=1e-4)
    assert found["active_units"] == [1, 1, 1]
    assert found["num_images"] == 2


def test_active_units_are_counted_by_layer_where_there_are_several():
    layers = {"lower layer": 1, "upper layer": 1}
    assert elbo_summary(fake_scores([1, 3]), "test", layers)["active_units_by_layer"] == {
        "lower layer": 1,
        "upper layer": 0,
    }
    of_seeds = elbo_summary(fake_scores([[1, 3], [2, 4]]), "test", layers)
    assert of_seeds["active_units_by_layer"] == {"lower layer": [1, 1], "upper layer": [0, 0]}
    assert "active_units_by_layer" not in elbo_summary(fake_scores([1, 3]), "test", ModelConfig().layers)


def fake_estimates(**fields):
    arrays = {name: np.asarray(values, np.float32) for name, values in fields.items()}
    unused = dict.fromkeys(EvidenceEstimate._fields, np.zeros(3, np.float32))
    return EvidenceEstimate(**(unused | arrays))


def test_the_summary_of_the_likelihood_tells_its_two_errors_apart():
    one = fake_estimates(
        log_evidence=[-1, -3, -5], log_evidence_se=[0.3, 0.0, 0.4], effective_sample_size=[10, 50, 30],
        pareto_k=[0.9, 0.2, -math.inf], reliable=[False, True, True],
    )  # fmt: skip
    found = nll_summary([one])
    assert found["nll"] == 3
    assert found["nll_se"] == pytest.approx(2 / math.sqrt(3))
    assert found["nll_monte_carlo_se"] == pytest.approx(0.5 / 3)
    assert found["effective_sample_size"] == 30
    assert found["effective_sample_size_min"] == 10
    assert found["nll_pareto_k_median"] == pytest.approx(0.2)
    assert found["nll_pareto_k_max"] == pytest.approx(0.9)
    assert found["nll_share_reliable"] == pytest.approx(2 / 3)
    both = nll_summary([one, one._replace(log_evidence=one.log_evidence - 2)])
    assert both["nll"] == 4
    assert both["nll_by_seed"] == [3, 5]
    assert both["nll_se"] == pytest.approx(1)


def test_a_seed_of_several_is_a_model_of_its_own():
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), EXACT, ROUGH)
    both = trained(stacked, num_seeds=2)
    scores = scores_of(both, IMAGES, jax.random.key(0))
    assert scores.elbo.shape == (2, 257)
    second = both.of_seed(1)
    assert second.experiment == replace(both.experiment, num_seeds=1)
    jax.tree.map(np.testing.assert_array_equal, second.params, ROUGH)
    with pytest.raises(ValueError, match="from 0 to 1, got 2: choose of these"):
        both.of_seed(2)
    assert SimpleNamespace(**elbo_summary(scores, "test")).test_elbo_by_seed == pytest.approx(
        scores.elbo.mean(1).tolist(), rel=1e-5
    )
