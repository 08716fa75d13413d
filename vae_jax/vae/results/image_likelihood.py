"""log p(x) of images under a trained model, by importance sampling from q(z|x)."""

import math
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from vae_jax.bounds import log_weights
from vae_jax.inference.evidence.evidence_estimate import (
    EvidenceEstimate,
    WeightSums,
    chunk_of_weights,
    estimate_from_sums,
    no_weights,
    with_tail,
    with_totals,
)
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.data.binarization import WHITE
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import VAE, Params
from vae_jax.vae.results.trained_model import TrainedModel

SAMPLES_AT_ONCE = 1000
"""Importance samples of an image at once: logits of so many rows stay in cache."""

CHUNKS_A_GROUP = 16
"""Chunks of samples whose largest weights are found together: selecting them takes about as long for one chunk."""

LEAST_CAPACITY = 2**17
"""Samples that one compiled program serves: it keeps the largest weights of so many, 1,087 an image."""

IMAGES_A_CALL = 100
"""Images of a call of `image_log_evidence`, after which progress is reported."""

TIMED_SECONDS, TIMED_SHARE = 0.5, 0.1
"""Timing stops after so many seconds or this share of the work, whichever comes first."""


def image_log_evidence(
    architecture: Architecture,
    params: Params,
    images: UInt8[Array | np.ndarray, "N X"],
    key: PRNGKey,
    *,
    num_importance_samples: int = 5000,
    num_images: int | None = None,
) -> EvidenceEstimate:
    """Estimates log p(x) of each image by importance sampling from q(z|x), in memory independent of the samples.

    See `image_weight_sums` for what is compiled when. The small program that makes estimates of the sums is compiled
    once for each number of samples.

    Args:
        architecture: the model without its parameters.
        params: parameters of the model.
        images: images as the model sees them, times 255 [N, X].
        key: consumed.
        num_importance_samples: k, the number of samples for each image. The error of one sample is infinite.
        num_images: number of images, from the first, that are computed; by default all. The `log_evidence` of the
            others is minus infinity.

    Returns:
        Estimates (nats) with an axis [N] of images.

    Example:
        With all parameters at zero every one of the 64 pixels is black with probability one half, whatever the latents:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.vae import Architecture, ModelConfig, image_log_evidence
        >>> architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(8,)), (8, 8))
        >>> params = jax.tree.map(jnp.zeros_like, architecture.init(jax.random.key(0)))
        >>> black = jnp.zeros((2, 64), jnp.uint8)
        >>> found = image_log_evidence(architecture, params, black, jax.random.key(1), num_importance_samples=100)
        >>> found.log_evidence.round(2).tolist()
        [-44.36, -44.36]

    Reference: Burda, Grosse & Salakhutdinov (2016), section 5.
    """
    sums = image_weight_sums(
        architecture, params, images, key, num_importance_samples=num_importance_samples, num_images=num_images
    )
    return _estimates(sums, num_samples=num_importance_samples)


def image_weight_sums(
    architecture: Architecture,
    params: Params,
    images: UInt8[Array | np.ndarray, "N X"],
    key: PRNGKey,
    *,
    num_importance_samples: int,
    num_images: int | None = None,
    capacity: int | None = None,
) -> WeightSums:
    """Sums of the importance weights of each image, which `image_log_evidence` makes its estimates of.

    One compiled program serves every `num_images`, and every number of samples from `SAMPLES_AT_ONCE` to 131,072. For
    more there is one for each power of two.

    Args:
        architecture, params, images, key, num_importance_samples, num_images: as for `image_log_evidence`.
        capacity: the number of samples whose program is run, by default that of `num_importance_samples`.

    Returns:
        Sums with an axis of images.
    """
    num_images = len(images) if num_images is None else num_images
    return _weight_sums(
        architecture, params, images, key, num_images, num_importance_samples,
        size=min(SAMPLES_AT_ONCE, num_importance_samples),
        capacity=_power_of_two(capacity or num_importance_samples),
    )  # fmt: skip


def model_log_evidence(
    trained: TrainedModel,
    images: np.ndarray,
    key: Any,
    *,
    num_importance_samples: int,
    on_progress: Callable[[float], None] = lambda _: None,
) -> EvidenceEstimate:
    """`image_log_evidence` of one seed's model on any number of images, in calls of equal size.

    Args:
        trained: of one seed.
        images: as the model sees them times 255 [N, X].
        key: consumed.
        num_importance_samples: k.
        on_progress: called with the share that is done.
    """
    size = min(IMAGES_A_CALL, len(images))
    parts = []
    for begin in range(0, len(images), size):
        part = images[begin : begin + size]
        padded = np.concatenate([part, np.zeros((size - len(part), images.shape[1]), np.uint8)])
        result = image_log_evidence(
            trained.architecture, trained.params, padded, jax.random.fold_in(key, begin),
            num_importance_samples=num_importance_samples, num_images=len(part),
        )  # fmt: skip
        parts.append(jax.tree.map(itemgetter(slice(len(part))), jax.device_get(result)))
        on_progress((begin + len(part)) / len(images))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def importance_sampling_seconds(trained: TrainedModel, images: np.ndarray, *, num_importance_samples: int) -> float:
    """About how long `model_log_evidence` will take, from a chunk of samples of a few images.

    The program that it will run is compiled before, which is not counted.
    """
    size = min(IMAGES_A_CALL, len(images))
    chunk = min(SAMPLES_AT_ONCE, num_importance_samples)
    num_chunks = len(images) * math.ceil(num_importance_samples / chunk)

    def seconds_of(num_images: int) -> float:
        begin = time.perf_counter()
        sums = image_weight_sums(
            trained.architecture, trained.params, images[:size], jax.random.key(0),
            num_importance_samples=chunk, num_images=num_images, capacity=num_importance_samples,
        )  # fmt: skip
        jax.block_until_ready(sums)
        return time.perf_counter() - begin

    seconds_of(0)
    seconds, num_timed, num_images = 0.0, 0, min(10, size)
    while seconds < TIMED_SECONDS and num_timed < TIMED_SHARE * num_chunks:
        seconds += seconds_of(num_images)
        num_timed += num_images
        num_images = min(2 * num_images, size)
    return seconds / num_timed * num_chunks


def _power_of_two(num_samples: int) -> int:
    return max(LEAST_CAPACITY, 2 ** (num_samples - 1).bit_length())


@partial(jax.jit, static_argnames="num_samples")
def _estimates(sums: WeightSums, *, num_samples: int) -> EvidenceEstimate:
    return jax.vmap(partial(estimate_from_sums, num_samples=num_samples))(sums)


@partial(jax.jit, static_argnames=("architecture", "size", "capacity"))
def _weight_sums(
    architecture: Architecture,
    params: Params,
    images: UInt8[Array, "N X"],
    key: PRNGKey,
    num_images: Int[Array, ""],
    num_samples: Int[Array, ""],
    *,
    size: int,
    capacity: int,
) -> WeightSums:
    model = architecture.bind(params)
    nothing = no_weights(capacity, jnp.result_type(float))

    def add(number: Array, found: WeightSums) -> WeightSums:
        x = images[number].astype(jnp.float32) / WHITE
        image_key = jax.random.fold_in(key, number)
        of_image = _sums_of_image(model, x, image_key, num_samples, size=size, nothing=nothing)
        return jax.tree.map(lambda leaf, value: leaf.at[number].set(value), found, of_image)

    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(images), *leaf.shape)), nothing)
    return lax.fori_loop(0, num_images, add, start)


def _sums_of_image(
    model: VAE, x: Float[Array, " X"], key: PRNGKey, num_samples: Int[Array, ""], *, size: int, nothing: WeightSums
) -> WeightSums:
    q = model.posterior(model.encode(x))

    def log_joint(z: Any) -> Scalar:
        return model.log_likelihood(x, z) + model.log_prior(z)

    num_chunks = -(-num_samples // size)

    def add_group(group: Array, sums: WeightSums) -> WeightSums:
        first = group * CHUNKS_A_GROUP

        def add(number: Array, so_far: tuple[WeightSums, Array]) -> tuple[WeightSums, Array]:
            sums, of_group = so_far
            log_w = chunk_of_weights(
                partial(log_weights, log_joint, q), key, number, size=size, num_samples=num_samples
            )
            return with_totals(sums, log_w), of_group.at[number - first].set(log_w)

        none = jnp.full((CHUNKS_A_GROUP, size), -jnp.inf, nothing.top.dtype)
        last = jnp.minimum(first + CHUNKS_A_GROUP, num_chunks)
        sums, of_group = lax.fori_loop(first, last, add, (sums, none))
        return with_tail(sums, of_group.ravel())

    return lax.fori_loop(0, -(-num_chunks // CHUNKS_A_GROUP), add_group, nothing)
