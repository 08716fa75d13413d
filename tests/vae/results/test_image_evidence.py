import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vae_jax.inference.evidence import Budget
from vae_jax.vae.config.experiment import Experiment, ModelConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.results.image_evidence import ModelPrior, image_evidence
from vae_jax.vae.results.trained_model import TrainedModel
from vae_jax.vae.training.training_loop import Learned

BUDGET = Budget(num_samples=2_000, num_bound_samples=20, num_chains=64, num_temperatures=40)
CLOSE = 6.5
"""Standard errors."""


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


def trained(config, shape, num_seeds=1):
    params = jax.jit(Architecture(config, shape).init)(jax.random.key(3))
    return TrainedModel(Experiment(model=config, num_seeds=num_seeds), shape, 0, Learned(params, {}))


def test_a_linear_decoder_has_the_exact_evidence_of_every_image():
    scale = 0.5
    config = ModelConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian", likelihood_scale=scale)
    model = trained(config, (2, 3))
    images = np.random.default_rng(0).integers(0, 256, (3, 6), dtype=np.uint8)
    head = model.params["decoder"]["head"]
    directions = np.asarray(head["kernel"], float)
    covariance = directions.T @ directions + scale**2 * np.eye(6)
    exact = stats.multivariate_normal(np.asarray(head["bias"], float), covariance).logpdf(images / 255)
    shares = []
    estimates = image_evidence(model, images, jax.random.key(0), budget=BUDGET, on_progress=shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    for name, estimate in estimates.items():
        assert estimate.log_evidence.shape == (3,)
        if name == "importance_weighted_bound":
            assert (estimate.log_evidence < exact + CLOSE * estimate.log_evidence_se).all()
        else:
            assert (estimate.log_evidence_se < 0.2).all()
            assert (np.abs(estimate.log_evidence - exact) < CLOSE * estimate.log_evidence_se).all()


HIERARCHICAL = ModelConfig(
    network="hierarchical", latent_size=3, hidden_sizes=(8,), top_latent_size=2, top_hidden_sizes=(5,)
)


@pytest.mark.slow
def test_both_layers_of_a_hierarchical_model_are_annealed():
    images = 255 * np.random.default_rng(0).integers(0, 2, (1, 6), dtype=np.uint8)
    estimates = image_evidence(trained(HIERARCHICAL, (2, 3)), images, jax.random.key(0), budget=BUDGET)
    annealed, sampled = estimates["annealed_importance_sampling"], estimates["prior_sampling"]
    error = math.hypot(annealed.log_evidence_se[0], sampled.log_evidence_se[0])
    assert error < 0.1
    assert abs(annealed.log_evidence[0] - sampled.log_evidence[0]) < CLOSE * error


def test_the_prior_of_a_model_is_a_distribution():
    model = trained(ModelConfig(latent_size=2, hidden_sizes=()), (2, 3))
    prior = ModelPrior(model.architecture.bind(model.params))
    draws = np.asarray(prior.sample(jax.random.key(0), (5_000,)))
    assert draws.shape == (5_000, 2)
    np.testing.assert_allclose(draws.std(0), 1, atol=0.06)
    assert prior.sample(jax.random.key(0)).shape == (2,)
    assert float(prior.log_prob(jnp.zeros(2))) == pytest.approx(-math.log(2 * math.pi))


@pytest.mark.slow
def test_the_prior_of_two_layers_is_their_joint_distribution():
    trained_model = trained(HIERARCHICAL, (2, 3))
    model = trained_model.architecture.bind(trained_model.params)

    @jax.jit
    def drawn(key):
        prior = ModelPrior(model)
        z = prior.sample(key)
        return prior.sample(key, (10,)), prior.log_prob(z), z, model.lower_prior(z.upper)

    draws, log_prob, z, given = drawn(jax.random.key(0))
    assert (draws.lower.shape, draws.upper.shape) == ((10, 3), (10, 2))
    expected = stats.norm.logpdf(z.upper).sum() + stats.norm.logpdf(z.lower, given.loc, np.exp(given.log_scale)).sum()
    assert float(log_prob) == pytest.approx(expected, rel=1e-5)


def test_what_has_no_evidence_is_refused():
    config = ModelConfig(latent_size=2, hidden_sizes=())
    images = np.zeros((1, 6), np.uint8)
    with pytest.raises(ValueError, match="trained must be a model of one seed, got 2: choose one with of_seed"):
        image_evidence(trained(config, (2, 3), num_seeds=2), images, jax.random.key(0), budget=BUDGET)
    with pytest.raises(ValueError, match="images must have at least one, got none"):
        image_evidence(trained(config, (2, 3)), images[:0], jax.random.key(0), budget=BUDGET)
