"""Runs that a command is pointed at: their models and their images, as the models see them."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import ImageOptions, ModelOptions
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.vae.config.experiment import DataConfig, Experiment
from vae_jax.vae.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.results.trained_model import TrainedModel


class VisibleImages(NamedTuple):
    """Images of a split, as a model sees them."""

    pixels: "np.ndarray"
    """Times 255, [N, X]."""
    labels: "np.ndarray | None"
    """[N]"""


def warn(line: str) -> None:
    """Prints a warning on standard error. The command continues."""
    print("vae-jax: warning:", line, file=sys.stderr)


def opened_run(path: Path) -> tuple[RunFolder, Experiment]:
    """The folder of a run and its experiment.

    Raises:
        Misuse: the folder holds no run.
    """
    folder = RunFolder(path)
    with refusals_are_misuse():
        return folder, folder.experiment()


def opened_model(model: ModelOptions) -> tuple[RunFolder, "TrainedModel"]:
    """The folder of a run, and its model of one seed.

    Raises:
        Misuse: the folder holds no run, or the run no such seed.
        CheckpointError: no checkpoint can be restored.
    """
    folder, experiment = opened_run(model.run)
    if not 0 <= model.model_seed < experiment.num_seeds:
        raise Misuse(
            f"--model-seed must be from 0 to {experiment.num_seeds - 1}, got {model.model_seed}: {model.run} has "
            f"{experiment.num_seeds} model{'s' * (experiment.num_seeds > 1)}"
        )
    from vae_jax.vae.results.trained_model import load_trained

    with refusals_are_misuse():
        return folder, load_trained(folder, which=model.checkpoint, on_damage=warn).of_seed(model.model_seed)


def loaded_images(config: DataConfig) -> "ImageData":
    """The images of a configuration, with a progress bar.

    Raises:
        Misuse: the configuration names no images.
        DatasetUnavailable: the images cannot be obtained.
    """
    from vae_jax.vae.data.datasets import DatasetMisuse, load_images

    with shown_steps() as on_progress:
        try:
            return load_images(
                config.data, data_dir=config.data_dir, num_validation=config.num_validation, on_progress=on_progress
            )
        except DatasetMisuse as error:
            raise Misuse(str(error)) from error


def images_of_run(
    folder: RunFolder, experiment: Experiment, *, data: str | None = None, data_dir: str | None = None
) -> "ImageData":
    """The images that a run was trained on, from where they were or from elsewhere.

    Raises:
        Misuse: there are no images there.
        DatasetUnavailable: the images cannot be obtained.
    """
    config = replace(
        experiment.data,
        data=data or experiment.data.data,
        data_dir=data_dir or experiment.data.data_dir,
    )
    images = loaded_images(config)
    if images.checksum != folder.read_config()["images"]["checksum"]:
        warn(f"the images from {images.source} are not those that {folder.path} was trained on")
    return images


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


def first_images(
    folder: RunFolder, trained: "TrainedModel", options: ImageOptions, num_images: int | None = None
) -> VisibleImages:
    """The first images of a split of a run, as its model sees them.

    Args:
        folder: of the run.
        trained: its model.
        options: which split, and where the images are.
        num_images: how many; by default all.

    Raises:
        Misuse: fewer than are asked for, or images of another shape.
        DatasetUnavailable: the images cannot be obtained.
    """
    images = images_of_run(folder, trained.experiment, data=options.data, data_dir=options.data_dir)
    pixels = images_seen(trained, images, options.split, needed=num_images or 1)
    labels = getattr(images, options.split).labels
    return VisibleImages(pixels[:num_images], None if labels is None else labels[:num_images])


def can_be_drawn(shape: tuple[int, ...]) -> bool:
    """Whether images of the shape have rows and columns: flat ones are saved as arrays alone."""
    return len(shape) > 1
