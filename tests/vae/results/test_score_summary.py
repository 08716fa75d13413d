import math
from dataclasses import replace
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

from linear_vae import (
    EXACT,
    IMAGES,
    LINEAR,
    ROUGH,
    trained,
)
from vae_jax.inference.evidence import EvidenceEstimate, estimate_from_weights
from vae_jax.vae.config.experiment import ModelConfig
from vae_jax.vae.results.score_summary import elbo_summary, nll_summary, scores_of
from vae_jax.vae.training.image_scores import Scores, make_score


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def rough_scores():
    """Scores of more images than are scored at once, many samples of each."""
    return jax.device_get(make_score(LINEAR, IMAGES, num_samples=400)(jax.random.key(0), ROUGH))


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
    unused = dict.fromkeys(EvidenceEstimate._fields, np.full(3, 1000, np.float32))
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
    assert found["nll_monte_carlo_bias"] == pytest.approx(0.25 / 6)
    assert not found["nll_monte_carlo_reliable"]
    assert found["nll_upper_bound"] == pytest.approx(3 + math.log(20) / 3)
    # Neither the bias nor an effective sample size of 10 asks for more samples.
    assert found["nll_samples_needed"] is None
    rough = one._replace(log_evidence_se=np.float32([1.9, 1.9, 1.9]), effective_sample_size=np.float32([2, 4, 5]))
    assert nll_summary([rough])["nll_samples_needed"] == 11_000
    all_good = one._replace(reliable=np.ones(3, bool))
    assert nll_summary([all_good])["nll_monte_carlo_reliable"]
    # Of many images the error of the mean is below the bias of each.
    many = jax.tree.map(lambda leaf: np.tile(leaf, 100), all_good)
    assert not nll_summary([many])["nll_monte_carlo_reliable"]
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
    chex.assert_trees_all_equal(second.params, ROUGH)
    with pytest.raises(ValueError, match="from 0 to 1, got 2: use one of these"):
        both.of_seed(2)
    assert SimpleNamespace(**elbo_summary(scores, "test")).test_elbo_by_seed == pytest.approx(
        scores.elbo.mean(1).tolist(), rel=1e-5
    )


def likelihoods(spread, num_samples, *, num_repeats):
    """Summaries of 200 images whose weights are lognormal with mean 1: the NLL is 0."""
    estimate = jax.jit(jax.vmap(estimate_from_weights))
    for seed in range(num_repeats):
        noise = np.random.default_rng(seed).normal(size=(200, num_samples)).astype(np.float32)
        yield nll_summary([jax.device_get(estimate(spread * noise - spread**2 / 2))])


@pytest.mark.slow
def test_a_monte_carlo_error_that_is_not_flagged_covers_and_the_bound_always_does():
    even, uneven = (
        list(likelihoods(spread, num_samples, num_repeats=300)) for spread, num_samples in ((0.3, 1_000), (3.0, 100))
    )
    assert sum(found["nll_monte_carlo_reliable"] for found in even) > 250
    covers = [
        abs(found["nll"]) < 1.96 * found["nll_monte_carlo_se"] for found in even if found["nll_monte_carlo_reliable"]
    ]
    assert np.mean(covers) > 0.9
    assert not any(found["nll_monte_carlo_reliable"] for found in uneven)
    # The NLL is too high by more than the error, and its spread is larger too.
    assert np.mean([found["nll"] for found in uneven]) > 0.3
    assert np.std([found["nll"] for found in uneven]) > 1.3 * np.mean([found["nll_monte_carlo_se"] for found in uneven])
    assert np.mean([found["nll_upper_bound"] > 0 for found in (*even, *uneven)]) > 0.95
