import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from linear_vae import (
    EXACT,
    IMAGES,
    LINEAR,
    ROUGH,
    exact_terms,
    linear_params,
)
from monte_carlo import assert_unbiased
from vae_jax.vae.training.image_scores import make_score


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def rough_scores():
    """Scores of more images than are scored at once, many samples of each."""
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
        of_seed = jax.tree.map(lambda leaf, number=seed: leaf[number], both)
        chex.assert_trees_all_close(of_seed, alone, rtol=1e-4, atol=1e-4)
