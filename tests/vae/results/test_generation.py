import re
from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, ndtri

from vae_jax.vae.config.experiment import Experiment, ModelConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import TwoLayers
from vae_jax.vae.results.generation import (
    decode_images,
    decode_manifold,
    encode_images,
    interpolate,
    on_unit_scale,
    reconstruct_images,
    sample_images,
    sampled_pixels,
)
from vae_jax.vae.results.trained_model import TrainedModel
from vae_jax.vae.training.image_scores import IMAGES_AT_ONCE
from vae_jax.vae.training.training_loop import Learned

SHAPE = (4, 5)
KEY = jax.random.key(3)
BERNOULLI = ModelConfig(latent_size=2, hidden_sizes=(6,), initializer="uniform_fan_in")
MODELS = {
    "bernoulli": BERNOULLI,
    "gaussian": replace(BERNOULLI, likelihood="gaussian", encoder="separate"),
    "categorical": replace(BERNOULLI, likelihood="categorical"),
    "convolutional": replace(BERNOULLI, network="convolutional", hidden_sizes=(3, 4)),
    "hierarchical": replace(BERNOULLI, network="hierarchical", top_latent_size=3, top_hidden_sizes=(5,)),
}


@lru_cache
def initial(model, shape):
    return jax.jit(Architecture(model, shape).init)(jax.random.key(0))


def untrained(name, shape=SHAPE, **changes):
    model = replace(MODELS[name], **changes)
    # Larger weights, for latents that matter; arrays of its own, for a test to change.
    params = jax.tree.map(lambda leaf: np.array(3 * leaf), initial(model, shape))
    return TrainedModel(Experiment(model=model), shape, 0, Learned(params, None))


def pixels(num_images, shape=SHAPE, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (num_images, int(np.prod(shape))))
    return values.astype(np.uint8)


def bound(trained):
    return trained.architecture.bind(jax.tree.map(jnp.asarray, trained.params))


@partial(jax.jit, static_argnames="architecture")
def means_of(architecture, params, latents):
    model = architecture.bind(params)

    def of_lower(lower):
        # A sample with that lower layer, if there are two, whose upper one must not matter.
        z = TwoLayers(lower, jnp.full(3, 7.0)) if architecture.config.network == "hierarchical" else lower
        return model.likelihood.mean(model.decode(z))

    return jax.vmap(of_lower)(latents)


@partial(jax.jit, static_argnames="architecture")
def code_of(architecture, params, images):
    return architecture.bind(params).encode(images.astype(jnp.float32) / 255)


def decoded(trained, latents):
    means = means_of(trained.architecture, trained.params, np.asarray(latents))
    return np.asarray(means).reshape(-1, *trained.shape)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("bernoulli", "hierarchical") else pytest.mark.slow) for name in MODELS],
)
def test_images_are_the_means_that_their_latents_decode_to(name):
    trained = untrained(name)
    images, latents = sample_images(trained, KEY, 5)
    lower = latents.lower if name == "hierarchical" else latents
    assert images.shape == (5, *SHAPE)
    assert lower.shape == (5, 2)
    expected = decoded(trained, lower)
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(images, expected, atol=1e-5)
    np.testing.assert_allclose(decode_images(trained, np.asarray(lower)), expected, atol=1e-5)


def test_bernoulli_means_are_the_probabilities_of_the_logits():
    trained = untrained("bernoulli")
    latents = np.array([[0.5, -1.0]], np.float32)
    hidden, head = trained.params["decoder"]["trunk"]["layers"][0], trained.params["decoder"]["head"]
    units = np.maximum(latents @ hidden["kernel"] + hidden["bias"], 0)
    expected = expit(units @ head["kernel"] + head["bias"]).reshape(1, *SHAPE)
    np.testing.assert_allclose(decode_images(trained, latents), expected, rtol=1e-5)


def test_sampled_pixels_are_binary_with_the_probabilities_of_the_mean_ones():
    trained = untrained("bernoulli")
    means, latents = sample_images(trained, KEY, 2000)
    drawn, same_latents = sample_images(trained, KEY, 2000, pixels=sampled_pixels)
    np.testing.assert_array_equal(latents, same_latents)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    means, drawn = np.asarray(means, float), np.asarray(drawn, float)
    z_scores = (drawn - means).sum(0) / np.sqrt((means * (1 - means)).sum(0))
    assert np.abs(z_scores).max() < 5
    # Not one draw of noise for all images.
    assert np.abs(np.corrcoef((drawn - means).reshape(2000, -1)[:20]) - np.eye(20)).max() < 0.9


def test_sampled_gaussian_pixels_have_the_learned_scale():
    trained = untrained("gaussian")
    trained.params["log_scale"] = np.log(np.float32(0.25))
    images = [sample_images(trained, KEY, 2000, **pixels).images for pixels in ({"pixels": sampled_pixels}, {})]
    noise = np.subtract(*map(np.asarray, images))
    assert abs(float(noise.std()) - 0.25) < 5 * 0.25 / np.sqrt(2 * noise.size)


@pytest.mark.parametrize("name", ["bernoulli", "hierarchical"])
def test_latents_are_from_the_prior(name):
    trained = untrained(name)
    latents = sample_images(trained, KEY, 2000).latents
    if name == "bernoulli":
        noise = [latents]
    else:
        prior = bound(trained).lower_prior(latents.upper)
        assert np.abs(prior.loc).mean() > 0.05
        noise = [latents.upper, (np.asarray(latents.lower) - prior.loc) / np.exp(prior.log_scale)]
    noise = np.concatenate([np.asarray(part, float) for part in noise], axis=1)
    assert np.abs(noise.mean(0)).max() < 5 / np.sqrt(2000)
    assert np.abs(np.cov(noise.T) - np.eye(noise.shape[1])).max() < 5 * np.sqrt(2 / 2000)


def test_samples_depend_on_the_key_and_not_on_their_number():
    trained = untrained("bernoulli")
    few, more = (sample_images(trained, KEY, number, pixels=sampled_pixels) for number in (3, IMAGES_AT_ONCE + 3))
    for one, other in zip(few, more, strict=True):
        np.testing.assert_allclose(one, other[:3], atol=1e-6)
    assert np.abs(few.latents - sample_images(trained, jax.random.key(4), 3).latents).min() > 1e-4


TAIL = 2 * IMAGES_AT_ONCE + 7


@pytest.mark.parametrize(
    ("name", "num_images"),
    [*((name, TAIL) for name in MODELS), ("bernoulli", 3), ("bernoulli", 2 * IMAGES_AT_ONCE)],
)
def test_codes_are_the_encoder_s(name, num_images):
    trained = untrained(name)
    images = pixels(num_images)
    codes = encode_images(trained, images, KEY)
    expected = code_of(trained.architecture, trained.params, images)
    np.testing.assert_allclose(codes.means, expected.loc, atol=1e-5)
    np.testing.assert_allclose(codes.scales, np.exp(expected.log_scale), rtol=1e-4)
    assert codes.upper_means.shape == (num_images, 3 if name == "hierarchical" else 0)


def test_upper_means_are_at_a_draw_of_the_lower_layer():
    trained = untrained("hierarchical")
    images = pixels(5)
    codes, others = (encode_images(trained, images, jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(codes.means, others.means)
    assert np.abs(codes.upper_means - others.upper_means).max() > 0.01
    head = trained.params["encoder"]["scale_head"]
    head["kernel"], head["bias"] = np.zeros_like(head["kernel"]), np.full_like(head["bias"], -40)
    codes = encode_images(trained, images, KEY)
    np.testing.assert_allclose(codes.upper_means, bound(trained).upper_encoder(codes.means).loc, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_reconstructions_are_decoded_from_the_means(name):
    trained = untrained(name)
    images = pixels(5)
    expected = decoded(trained, encode_images(trained, images, KEY).means)
    np.testing.assert_allclose(reconstruct_images(trained, images), expected, atol=1e-5)


def test_images_keep_their_shape_in_colour_and_without_rows():
    for shape in ((4, 5, 3), (7,)):
        trained = untrained("bernoulli", shape)
        images = pixels(2, shape)
        assert sample_images(trained, KEY, 2).images.shape == (2, *shape)
        assert reconstruct_images(trained, images).shape == (2, *shape)
        originals = on_unit_scale(images, shape)
        assert originals.dtype == np.float32
        np.testing.assert_allclose(originals, images.reshape(2, *shape) / 255, rtol=1e-6)


def test_the_manifold_is_decoded_at_the_quantiles_of_the_prior():
    trained = untrained("bernoulli")
    images = decode_manifold(trained, 3)
    assert images.shape == (3, 3, *SHAPE)
    quantiles = ndtri([1 / 6, 1 / 2, 5 / 6])
    images = np.asarray(images)
    for row, column in ((0, 0), (0, 2), (2, 1)):
        z = np.array([[quantiles[column], quantiles[row]]], np.float32)
        np.testing.assert_allclose(images[row, column], decode_images(trained, z)[0], atol=1e-5)
    assert np.abs(images - images.swapaxes(0, 1)).max() > 0.01


def test_paths_lead_from_one_original_over_both_reconstructions_to_the_other():
    trained = untrained("bernoulli")
    first, second = pixels(5, seed=1), pixels(5, seed=2)
    paths = np.asarray(interpolate(trained, first, second, 7))
    assert paths.shape == (5, 7, *SHAPE)
    for place, images in ((0, first), (-1, second)):
        np.testing.assert_array_equal(paths[:, place], on_unit_scale(images, SHAPE))
    for place, images in ((1, first), (-2, second)):
        np.testing.assert_allclose(paths[:, place], reconstruct_images(trained, images), atol=1e-5)
    means = [encode_images(trained, images, KEY).means for images in (first, second)]
    for place, share in ((2, 0.25), (3, 0.5)):
        expected = decode_images(trained, (1 - share) * np.asarray(means[0]) + share * np.asarray(means[1]))
        np.testing.assert_allclose(paths[:, place], expected, atol=1e-5)


def of_two_seeds():
    trained = untrained("bernoulli")
    return replace(trained, experiment=replace(trained.experiment, num_seeds=2))


MISUSES = {
    "trained must be a model of one seed, got 2: ": lambda: sample_images(of_two_seeds(), KEY, 1),
    "trained must be a model of one seed, got 2: choose": lambda: reconstruct_images(of_two_seeds(), pixels(1)),
    "num_images must be at least 1, got 0: ": lambda: sample_images(untrained("bernoulli"), KEY, 0),
    "latents must be [N, 2], got shape (4, 3): ": lambda: decode_images(untrained("bernoulli"), jnp.zeros((4, 3))),
    "num_per_side must be at least 1, got 0: ": lambda: decode_manifold(untrained("bernoulli"), 0),
    "one layer of 2 latents, got a mlp with 3: ": lambda: decode_manifold(untrained("bernoulli", latent_size=3), 5),
    "one layer of 2 latents, got a hierarchical with 2: ": lambda: decode_manifold(untrained("hierarchical"), 5),
    "num_steps must be at least 4, got 3: ": lambda: interpolate(untrained("bernoulli"), pixels(1), pixels(1), 3),
    "must have one shape, got (1, 20) and (2, 20): ": lambda: interpolate(
        untrained("bernoulli"), pixels(1), pixels(2), 5
    ),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse_is_refused(message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{re.escape(message)}[^\n]+$"):
        MISUSES[message]()
