"""The images and the model that every contender is given, and the type of a task."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from vae_jax.vae.config.experiment import Experiment, Precision
from vae_jax.vae.config.presets import PRESETS
from vae_jax.vae.data.binarization import prepared
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.data.visible_images import STREAMS

PRESET_NAME = "bernoulli-256-50"
PRESET = PRESETS[PRESET_NAME]
HIDDEN_SIZE = PRESET.model.hidden_sizes[0]
LATENT_SIZE = PRESET.model.latent_size
LEARNING_RATE = PRESET.training.learning_rate

BINARIZATION_SEED = 0
"""The seed of the one draw of the test images that every contender is scored on."""

Task: TypeAlias = Callable[[], Mapping[str, Any]]
"""Does its work once, to the end, and returns its results. The caller times it."""


@dataclass(frozen=True)
class TrainingWork:
    """The images of one run of the benchmark."""

    pixels: UInt8[np.ndarray, "N X"]
    """Grey images for training."""
    binary_test_pixels: UInt8[np.ndarray, "M X"]
    """Images for scoring: 0 and 255."""
    shape: tuple[int, ...]
    """The shape of an image."""

    @property
    def num_pixels(self) -> int:
        """The number of pixels in an image."""
        return math.prod(self.shape)


def load_work(data: str, num_images: int | None) -> TrainingWork:
    """Loads every training image, or the given number of them, and the test images."""
    images = load_images(data, num_validation=0)
    binary = prepared(images.test.images, "fixed", BINARIZATION_SEED, stream=STREAMS["test"])
    pixels = images.train.images[:num_images]
    return TrainingWork(pixels.reshape(len(pixels), -1), binary, images.shape)


def experiment_of(batch_size: int, precision: Precision, num_seeds: int = 1) -> Experiment:
    """Returns the preset with PyTorch's initial values, so that the models compare in quality too."""
    return replace(
        PRESET,
        model=replace(PRESET.model, initializer="uniform_fan_in"),
        training=replace(PRESET.training, batch_size=batch_size, precision=precision),
        num_seeds=num_seeds,
    )


def batches(generator: np.random.Generator, num_images: int, batch_size: int, num_steps: int) -> Iterator[np.ndarray]:
    """Indices of the first batches of an epoch [B], in a new order."""
    order = generator.permutation(num_images).astype(np.int32)
    return (order[step * batch_size : (step + 1) * batch_size] for step in range(num_steps))
