"""`vae-jax reconstruct`: images, and what a trained model makes of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from vae_jax.cli.opened_runs import can_be_drawn, first_images, opened_model
from vae_jax.cli.options import Debug, ImageOptions, ModelOptions, Out, check_options
from vae_jax.cli.output_folder import file_names, save_figure, staged
from vae_jax.runtime import start_jax
from vae_jax.settings import AT_LEAST_1

MAX_DRAWN = 16
"""Images in the row of a figure."""


@dataclass(frozen=True)
class ReconstructCommand:
    """Reconstructs images with a trained model.

    Images are encoded, and the means of their latents decoded. Saves reconstructions.png, reconstructions.pdf and
    reconstructions.npz, whose arrays are originals (as the model sees them) and reconstructions, both [N, *shape] from
    0 to 1, and labels [N] if there are any.
    """

    model: ModelOptions
    """The trained model."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """The images."""
    num_images: Annotated[int, AT_LEAST_1] = 8
    """Number of images, the first of the split. The figure shows the first 16."""
    out: Out = Path("vae-jax-reconstruct")
    debug: Debug = False

    def run(self) -> None:
        """Reconstructs and saves.

        Raises:
            Misuse: the folder holds no run, or an argument is refused.
        """
        check_options(self)
        import numpy as np

        start_jax("float32", num_cpu_devices=1)
        from vae_jax import plotting
        from vae_jax.vae.results.generation import on_unit_scale, reconstruct_images

        folder, trained = opened_model(self.model)
        seen = first_images(folder, trained, self.images, self.num_images)
        originals = on_unit_scale(seen.pixels, trained.shape)
        reconstructed = np.asarray(reconstruct_images(trained, seen.pixels))
        arrays: dict[str, Any] = {"originals": originals, "reconstructions": reconstructed}
        if seen.labels is not None:
            arrays["labels"] = seen.labels
        with staged(self.out) as stage:
            np.savez(stage / "reconstructions.npz", **arrays)
            if can_be_drawn(trained.shape):
                rows = {"reconstruction": reconstructed[:MAX_DRAWN]}
                save_figure(stage, "reconstructions", plotting.reconstructions(originals[:MAX_DRAWN], rows))
            saved = file_names(stage)
        print(f"Saved in {self.out}: {saved}")
