"""`vae-jax reconstruct`: images beside what a trained model makes of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.opened_runs import images_of_run
from vae_jax.cli.output_folder import save_figure, staged
from vae_jax.cli.trained_models import can_be_drawn, images_seen, opened_model
from vae_jax.runtime import start_jax

MAX_DRAWN = 16
"""Images in the row of a figure."""


@dataclass(frozen=True)
class ReconstructCommand:
    """Encodes images and decodes the means of their latents.

    Saves reconstructions.png, reconstructions.pdf and reconstructions.npz, whose arrays are originals (as the model
    sees them) and reconstructions, both [N, *shape] from 0 to 1, and labels [N] if there are any.
    """

    folder: tyro.conf.Positional[Path]
    """Of the run."""
    num_images: int = 8
    """The first so many of the split; the figure shows the first 16."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    checkpoint: Literal["best", "latest"] = "best"
    """By the validation ELBO, or the last."""
    model_seed: int = 0
    """Which model, of a run of several seeds."""
    data: str | None = None
    """Where the images are, if not where the run had them."""
    data_dir: str | None = None
    """Where datasets are kept, if not where the run had them."""
    out: Path = Path("vae-jax-reconstruct")
    """Folder for the results."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Reconstructs and saves.

        Raises:
            Misuse: no run, or arguments that no reconstruction can be had for.
        """
        import numpy as np

        if self.num_images < 1:
            raise Misuse(f"--num-images must be at least 1, got {self.num_images}: raise it")
        start_jax("float32", num_cpu_devices=1)
        from vae_jax import plotting
        from vae_jax.vae.results.generation import on_unit_scale, reconstruct_images

        folder, trained = opened_model(self.folder, checkpoint=self.checkpoint, model_seed=self.model_seed)
        images = images_of_run(folder, trained.experiment, data=self.data, data_dir=self.data_dir)
        seen = images_seen(trained, images, self.split, needed=self.num_images)[: self.num_images]
        originals = on_unit_scale(seen, trained.shape)
        reconstructed = np.asarray(reconstruct_images(trained, seen))
        labels = getattr(images, self.split).labels
        known = {} if labels is None else {"labels": labels[: self.num_images]}
        with staged(self.out) as stage:
            np.savez(stage / "reconstructions.npz", originals=originals, reconstructions=reconstructed, **known)
            if can_be_drawn(trained.shape):
                rows = {"reconstruction": reconstructed[:MAX_DRAWN]}
                save_figure(stage, "reconstructions", plotting.reconstructions(originals[:MAX_DRAWN], rows))
            saved = sorted(file.name for file in stage.iterdir())
        print(f"Saved in {self.out}: {', '.join(saved)}")
