"""A trained model's samples, reconstructions, codes, manifold and paths between images.

Images come out as [N, *shape] on a scale from 0 (black) to 1, which a Gaussian likelihood may leave. They go in as
`vae_jax.vae.data.visible_images.visible_images` gives them: as the model sees them, flat, times 255.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, UInt8

from vae_jax.typing import PRNGKey
from vae_jax.vae.data.binarization import WHITE
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.likelihoods import Outputs, PixelLikelihood, Pixels
from vae_jax.vae.models.vae import VAE, HierarchicalVAE, Params, TwoLayers
from vae_jax.vae.results.trained_model import TrainedModel
from vae_jax.vae.training.image_scores import IMAGES_AT_ONCE

PixelRule: TypeAlias = Callable[[PixelLikelihood, Outputs, PRNGKey], Pixels]
"""The pixels of one image from what the decoder puts out."""


def mean_pixels(likelihood: PixelLikelihood, outputs: Outputs, key: PRNGKey) -> Pixels:
    """E[x|z]."""
    del key
    return likelihood.mean(outputs)


def sampled_pixels(likelihood: PixelLikelihood, outputs: Outputs, key: PRNGKey) -> Pixels:
    """A draw of p(x|z)."""
    return likelihood.sample(outputs, key)


class Samples(NamedTuple):
    """Images drawn from a model, with their latents."""

    images: Float[Array, "N ..."]
    latents: Any
    """Latents [N, D], or `TwoLayers` of a hierarchical model."""


def sample_images(trained: TrainedModel, key: PRNGKey, num_images: int, *, pixels: PixelRule = mean_pixels) -> Samples:
    """Draws latents from the prior, and images given the latents.

    With the same key, the first of more images are the same as those of fewer.

    Args:
        trained: a model of one seed.
        key: consumed.
        num_images: N, at least 1.
        pixels: `mean_pixels` for the mean images, or `sampled_pixels` for draws of the pixels.

    Returns:
        The images [N, *shape] on a scale from 0 to 1, and the latents.

    Raises:
        ValueError: the model has several seeds, or `num_images` is below 1.

    Example:
        The first images of a longer draw are those of a shorter one:

        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainedModel, init_state, sample_images
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> state = init_state(experiment, np.zeros((1, 64), np.uint8), (8, 8), jax.random.key(0))
        >>> untrained = TrainedModel(experiment, (8, 8), 0, state.learned)
        >>> few, more = (sample_images(untrained, jax.random.key(1), number).images for number in (2, 5))
        >>> more.shape, np.allclose(few, more[:2], atol=1e-5)
        ((5, 8, 8), True)
    """
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}: raise it")
    return _sampled(*_of_one_seed(trained), key, num_images=num_images, pixels=pixels)


def decode_images(trained: TrainedModel, latents: Float[Array | np.ndarray, "N D"]) -> Float[Array, "N ..."]:
    """Decodes each row of latents into its mean image.

    Args:
        trained: a model of one seed.
        latents: latents [N, D]; those of the lower layer in a hierarchical model.

    Returns:
        The images [N, *shape] on a scale from 0 to 1.

    Raises:
        ValueError: the model has several seeds or another number of latents.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainedModel, decode_images, init_state
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> state = init_state(experiment, np.zeros((1, 64), np.uint8), (8, 8), jax.random.key(0))
        >>> images = decode_images(TrainedModel(experiment, (8, 8), 0, state.learned), np.zeros((3, 2)))
        >>> images.shape, bool(((images > 0) & (images < 1)).all())
        ((3, 8, 8), True)
    """
    num_latents = trained.experiment.model.latent_size
    if latents.shape[1] != num_latents:
        raise ValueError(f"latents must be [N, {num_latents}], got shape {latents.shape}: hand in all that it decodes")
    return _decoded(*_of_one_seed(trained), jnp.asarray(latents))


class Codes(NamedTuple):
    """Means and scales of q(z|x) of images; in a hierarchical model those of the lower layer."""

    means: Float[Array, "N D"]
    """E_q[z|x]."""
    scales: Float[Array, "N D"]
    """Standard deviations of q(z|x)."""
    upper_means: Float[Array, "N U"]
    """E_q[upper|lower] at one draw of the lower layer. U is 0 without a second layer."""


def encode_images(trained: TrainedModel, images: UInt8[np.ndarray, "N X"], key: PRNGKey) -> Codes:
    """Encodes images: computes the means and scales of q(z|x), a few images at a time.

    Args:
        trained: a model of one seed.
        images: images as the model sees them, times 255 [N, X].
        key: consumed by the draws of a hierarchical model. The means and scales do not depend on it.

    Returns:
        The codes of the N images.

    Raises:
        ValueError: the model has several seeds.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainedModel, encode_images, init_state
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> images = np.zeros((3, 64), np.uint8)
        >>> state = init_state(experiment, images, (8, 8), jax.random.key(0))
        >>> codes = encode_images(TrainedModel(experiment, (8, 8), 0, state.learned), images, jax.random.key(1))
        >>> codes.means.shape, bool((codes.scales > 0).all())
        ((3, 2), True)
    """
    return _encoded(*_of_one_seed(trained), images, key)


def reconstruct_images(trained: TrainedModel, images: UInt8[np.ndarray, "N X"]) -> Float[Array, "N ..."]:
    """Decodes the mean of q(z|x) of each image into its mean image, without a draw.

    In a hierarchical model it is the mean of the lower layer.

    Args:
        trained: a model of one seed.
        images: images as the model sees them, times 255 [N, X].

    Returns:
        The reconstructions [N, *shape] on a scale from 0 to 1.

    Raises:
        ValueError: the model has several seeds.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainedModel, init_state, reconstruct_images
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> images = np.zeros((3, 64), np.uint8)
        >>> state = init_state(experiment, images, (8, 8), jax.random.key(0))
        >>> reconstruct_images(TrainedModel(experiment, (8, 8), 0, state.learned), images).shape
        (3, 8, 8)
    """
    return decode_images(trained, _means(trained, images))


def decode_manifold(trained: TrainedModel, num_per_side: int) -> Float[Array, "R C ..."]:
    """Decodes mean images over a grid of two latents at quantiles of the prior, in the form of `plotting.manifold`.

    The image [r, c] is decoded from z_1 at the quantile (c + 1/2) / C and z_2 at the quantile (r + 1/2) / R.

    Args:
        trained: a model of one seed with 2 latents in one layer.
        num_per_side: R and C, which are equal.

    Returns:
        The images [R, C, *shape] on a scale from 0 to 1.

    Raises:
        ValueError: the model has several seeds, another number of latents or two layers, or `num_per_side` is below 1.

    Example:
        The middle of an odd number is the median of the prior, which is zero:

        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainedModel, decode_images, decode_manifold, init_state
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> state = init_state(experiment, np.zeros((1, 64), np.uint8), (8, 8), jax.random.key(0))
        >>> untrained = TrainedModel(experiment, (8, 8), 0, state.learned)
        >>> images = decode_manifold(untrained, 3)
        >>> images.shape, np.allclose(images[1, 1], decode_images(untrained, np.zeros((1, 2)))[0], atol=1e-5)
        ((3, 3, 8, 8), True)
    """
    if num_per_side < 1:
        raise ValueError(f"num_per_side must be at least 1, got {num_per_side}: raise it")
    if not has_manifold(trained):
        model = trained.experiment.model
        raise ValueError(
            f"a manifold is of a model with one layer of 2 latents, got a {model.network} with {model.latent_size}: "
            "train one with latent_size 2"
        )
    quantiles = ndtri((jnp.arange(num_per_side) + 0.5) / num_per_side)
    z1, z2 = jnp.meshgrid(quantiles, quantiles)
    images = decode_images(trained, jnp.stack([z1.ravel(), z2.ravel()], axis=1))
    return images.reshape(num_per_side, num_per_side, *trained.shape)


def has_manifold(trained: TrainedModel) -> bool:
    """Whether all that the model can make lies over two latents with a standard normal prior."""
    return trained.experiment.model.latent_size == 2 and trained.experiment.model.network != "hierarchical"


def interpolate(
    trained: TrainedModel, first: UInt8[np.ndarray, "R X"], second: UInt8[np.ndarray, "_ X"], num_steps: int
) -> Float[Array, "R S ..."]:
    """Decodes a path from each first image to its second one, along a straight line of latents.

    A path begins and ends with the originals. Between them are mean images along the line from the mean of q(z|first)
    to the mean of q(z|second). So the second image and the last but one are the reconstructions.

    Args:
        trained: a model of one seed.
        first: images as the model sees them, times 255 [R, X].
        second: as many images, at the other ends of the paths.
        num_steps: S, the number of images in a path with both originals, at least 4.

    Returns:
        The paths [R, S, *shape] on a scale from 0 to 1.

    Raises:
        ValueError: the model has several seeds, the ends differ in shape, or there are fewer than 4 steps.

    Example:
        The ends of a path are the originals:

        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainedModel, init_state, interpolate
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> black = np.zeros((1, 64), np.uint8)
        >>> state = init_state(experiment, black, (8, 8), jax.random.key(0))
        >>> path = interpolate(TrainedModel(experiment, (8, 8), 0, state.learned), black, black + np.uint8(255), 5)
        >>> path.shape, path[0, 0].max().item(), path[0, -1].min().item()
        ((1, 5, 8, 8), 0.0, 1.0)
    """
    if num_steps < 4:
        raise ValueError(f"num_steps must be at least 4, got {num_steps}: two originals and their reconstructions")
    if first.shape != second.shape:
        raise ValueError(f"first and second must have one shape, got {first.shape} and {second.shape}: pair them up")
    begin, end = (_means(trained, images)[:, None] for images in (first, second))
    share = jnp.linspace(0, 1, num_steps - 2)[None, :, None]
    latents = (1 - share) * begin + share * end
    path = decode_images(trained, latents.reshape(-1, latents.shape[-1]))
    path = path.reshape(len(first), num_steps - 2, *trained.shape)
    originals = [on_unit_scale(images, trained.shape)[:, None] for images in (first, second)]
    return jnp.concatenate([originals[0], path, originals[1]], axis=1)


def on_unit_scale(images: UInt8[np.ndarray, "N X"], shape: tuple[int, ...]) -> Float[np.ndarray, "N ..."]:
    """Images as they come out, from images as they go in."""
    return images.reshape(-1, *shape).astype(np.float32) / WHITE


def _of_one_seed(trained: TrainedModel) -> tuple[Architecture, Params]:
    num_seeds = trained.experiment.num_seeds
    if num_seeds > 1:
        raise ValueError(f"trained must be a model of one seed, got {num_seeds}: choose one with of_seed")
    return trained.architecture, trained.params


def _means(trained: TrainedModel, images: UInt8[np.ndarray, "N X"]) -> Float[Array, "N D"]:
    return encode_images(trained, images, jax.random.key(0)).means


@partial(jax.jit, static_argnames=("architecture", "num_images", "pixels"))
def _sampled(
    architecture: Architecture, params: Params, key: PRNGKey, *, num_images: int, pixels: PixelRule
) -> Samples:
    model = architecture.bind(params)

    def draw(number: Array) -> Samples:
        latents_key, pixels_key = jax.random.split(jax.random.fold_in(key, number))
        z = model.sample_prior(latents_key)
        image = pixels(model.likelihood, model.decode(z), pixels_key)
        return Samples(image.reshape(architecture.shape), z)

    return _a_few_at_a_time(draw, jnp.arange(num_images))


@partial(jax.jit, static_argnames="architecture")
def _decoded(architecture: Architecture, params: Params, latents: Float[Array, "N D"]) -> Float[Array, "N ..."]:
    model = architecture.bind(params)

    def decode(z: Float[Array, " D"]) -> Float[Array, "..."]:
        return model.likelihood.mean(model.decode(_with_lower(model, z))).reshape(architecture.shape)

    return _a_few_at_a_time(decode, latents)


@partial(jax.jit, static_argnames="architecture")
def _encoded(architecture: Architecture, params: Params, images: UInt8[Array, "N X"], key: PRNGKey) -> Codes:
    model = architecture.bind(params)

    def encode(arguments: tuple[UInt8[Array, " X"], Array]) -> tuple[Array, Array]:
        image, number = arguments
        code = model.encode(image.astype(jnp.float32) / WHITE)
        return model.latent_means(code, jax.random.fold_in(key, number)), jnp.exp(code.log_scale)

    means, scales = _a_few_at_a_time(encode, (images, jnp.arange(len(images))))
    # The lower layer's come first.
    num_lower = scales.shape[1]
    return Codes(means[:, :num_lower], scales, means[:, num_lower:])


def _a_few_at_a_time(function: Callable[[Any], Any], arrays: Any) -> Any:
    """The function over the leading axis of arrays, in memory that does not grow with it."""
    return lax.map(function, arrays, batch_size=IMAGES_AT_ONCE)


def _with_lower(model: VAE, lower: Float[Array, " D"]) -> Any:
    """A sample of the model as its decoder needs it, which sees the lower layer alone."""
    return TwoLayers(lower, jnp.empty(0)) if isinstance(model, HierarchicalVAE) else lower
