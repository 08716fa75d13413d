"""Runs that a command is pointed at."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax.cli.image_loading import loaded_images
from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from vae_jax.vae.data.image_data import ImageData


def warn(line: str) -> None:
    """Says on standard error what is not as it should be, though the command goes on."""
    print("vae-jax: warning:", line, file=sys.stderr)


def opened_run(path: Path) -> tuple[RunFolder, Experiment]:
    """The folder of a run and its experiment.

    Raises:
        Misuse: there is none.
    """
    folder = RunFolder(path)
    with refusals_are_misuse():
        return folder, folder.experiment()


def images_of_run(
    folder: RunFolder, experiment: Experiment, *, data: str | None = None, data_dir: str | None = None
) -> "ImageData":
    """The images that a run was trained on, from where they were or from elsewhere.

    Raises:
        Misuse: there are none there.
        DatasetUnavailable: they cannot be had.
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
