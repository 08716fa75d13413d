"""Loading images for a command, with its progress and its refusals."""

from typing import TYPE_CHECKING

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.vae.config.experiment import DataConfig

if TYPE_CHECKING:
    from vae_jax.vae.data.image_data import ImageData


def loaded_images(config: DataConfig) -> "ImageData":
    """The images of a configuration.

    Raises:
        Misuse: it names none.
        DatasetUnavailable: they cannot be had.
    """
    from vae_jax.vae.data.datasets import DatasetMisuse, load_images

    with shown_steps() as on_progress:
        try:
            return load_images(
                config.data, data_dir=config.data_dir, num_validation=config.num_validation, on_progress=on_progress
            )
        except DatasetMisuse as error:
            raise Misuse(str(error)) from error
