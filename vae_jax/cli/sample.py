"""`vae-jax sample`: images that a trained model draws from its prior."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.options import check_seed
from vae_jax.cli.output_folder import save_figure, staged
from vae_jax.cli.trained_models import can_be_drawn, opened_model
from vae_jax.runtime import start_jax

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from vae_jax.vae.results.generation import Samples

MAX_DRAWN = 400
"""Images in a figure."""


@dataclass(frozen=True)
class SampleCommand:
    """Draws latents from the prior of a trained model, and images from them.

    Saves samples.png, samples.pdf and samples.npz, whose arrays are images [N, *shape] from 0 to 1 and latents [N, D]
    (and upper_latents [N, U] of a hierarchical model).
    """

    folder: tyro.conf.Positional[Path]
    """Of the run."""
    num_images: int = 64
    """How many; the figure shows the first 400."""
    pixels: Literal["mean", "sampled"] = "mean"
    """The mean of the pixels given the latents, or a draw of them."""
    checkpoint: Literal["best", "latest"] = "best"
    """By the validation ELBO, or the last."""
    model_seed: int = 0
    """Which model, of a run of several seeds."""
    seed: int = 0
    """Of the draws."""
    out: Path = Path("vae-jax-sample")
    """Folder for the results."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Draws and saves.

        Raises:
            Misuse: no run, or arguments that no sample can be had for.
        """
        import numpy as np

        if self.num_images < 1:
            raise Misuse(f"--num-images must be at least 1, got {self.num_images}: raise it")
        check_seed(self.seed)
        start_jax("float32", num_cpu_devices=1)
        import jax

        from vae_jax.vae.results.generation import mean_pixels, sample_images, sampled_pixels

        _, trained = opened_model(self.folder, checkpoint=self.checkpoint, model_seed=self.model_seed)
        rule = {"mean": mean_pixels, "sampled": sampled_pixels}[self.pixels]
        samples = sample_images(trained, jax.random.key(self.seed), self.num_images, pixels=rule)
        with staged(self.out) as stage:
            np.savez(stage / "samples.npz", **_arrays(samples))
            if can_be_drawn(trained.shape):
                save_figure(stage, "samples", _grid(np.asarray(samples.images[:MAX_DRAWN])))
            saved = sorted(file.name for file in stage.iterdir())
        print(f"Saved in {self.out}: {', '.join(saved)}")


def _arrays(samples: "Samples") -> dict[str, Any]:
    from vae_jax.vae.models.vae import TwoLayers

    latents = samples.latents
    if isinstance(latents, TwoLayers):
        return {"images": samples.images, "latents": latents.lower, "upper_latents": latents.upper}
    return {"images": samples.images, "latents": latents}


def _grid(images: "np.ndarray") -> "Figure":
    from vae_jax import plotting

    return plotting.image_grid(images, num_columns=max(8, math.ceil(math.sqrt(len(images)))))
