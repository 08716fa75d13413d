"""The trained models and the images that a command makes something of."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.opened_runs import opened_run, warn
from vae_jax.vae.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.results.trained_model import TrainedModel


def opened_model(path: Path, *, checkpoint: str, model_seed: int) -> tuple[RunFolder, "TrainedModel"]:
    """The folder of a run, and its model of one seed.

    Raises:
        Misuse: no run, or no such checkpoint or seed.
        CheckpointError: no checkpoint can be restored.
    """
    folder, experiment = opened_run(path)
    if not 0 <= model_seed < experiment.num_seeds:
        raise Misuse(
            f"--model-seed must be from 0 to {experiment.num_seeds - 1}, got {model_seed}: {path} has a model of each"
        )
    from vae_jax.vae.results.trained_model import load_trained

    with refusals_are_misuse():
        return folder, load_trained(folder, which=checkpoint, on_damage=warn).of_seed(model_seed)


def images_seen(trained: "TrainedModel", images: "ImageData", split: str, *, needed: int = 1) -> "np.ndarray":
    """The images of a split as a model sees them, times 255 [N, X]: where training binarizes afresh, one fixed draw.

    Raises:
        Misuse: fewer than are needed, or images of another shape.
    """
    import numpy as np

    from vae_jax.vae.data.visible_images import visible_images

    if images.shape != trained.shape:
        raise Misuse(
            f"--data must be of images of the shape {trained.shape} that the model sees, got {images.shape} from "
            f"{images.source}: name the data of the run"
        )
    num_images = len(getattr(images, split).images)
    if num_images < needed:
        raise Misuse(f"--split must have at least {needed} images, got {split} with {num_images}: ask for fewer")
    # An empty array cannot be made flat.
    if not num_images:
        return np.empty((0, math.prod(trained.shape)), np.uint8)
    return visible_images(trained.experiment, getattr(images, split), split)


def can_be_drawn(shape: tuple[int, ...]) -> bool:
    """Whether images of the shape have rows and columns: flat ones are kept as arrays alone."""
    return len(shape) > 1
