"""`vae-jax sample`: images that a trained model draws from its prior."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vae_jax.cli.opened_runs import can_be_drawn, opened_model
from vae_jax.cli.options import Debug, ModelOptions, Out, Seed, check_options
from vae_jax.cli.output_folder import file_names, save_figure, staged
from vae_jax.runtime import start_jax
from vae_jax.settings import AT_LEAST_1

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from vae_jax.vae.results.generation import Samples

MAX_DRAWN = 400
"""Images that a figure shows at most."""


@dataclass(frozen=True)
class SampleCommand:
    """Draws images from a trained model.

    Latents are drawn from the prior, and images from them. Saves samples.png, samples.pdf and samples.npz, whose arrays
    are images [N, *shape] from 0 to 1 and latents [N, D], and upper_latents [N, U] with a hierarchical model.
    """

    model: ModelOptions
    """The trained model."""
    num_images: Annotated[int, AT_LEAST_1] = 64
    """Number of images. The figure shows the first 400."""
    pixels: Literal["mean", "sampled"] = "mean"
    """The pixels' mean given the latents, or sampled pixels."""
    seed: Seed = 0
    out: Out = Path("vae-jax-sample")
    debug: Debug = False

    def run(self) -> None:
        """Draws and saves.

        Raises:
            Misuse: the folder holds no run, or an argument is refused.
        """
        check_options(self)
        import numpy as np

        start_jax("float32", num_cpu_devices=1)
        import jax

        from vae_jax.vae.results.generation import mean_pixels, sample_images, sampled_pixels

        _, trained = opened_model(self.model)
        rule = {"mean": mean_pixels, "sampled": sampled_pixels}[self.pixels]
        samples = sample_images(trained, jax.random.key(self.seed), self.num_images, pixels=rule)
        with staged(self.out) as stage:
            np.savez(stage / "samples.npz", **_arrays(samples))
            if can_be_drawn(trained.shape):
                save_figure(stage, "samples", _grid(np.asarray(samples.images[:MAX_DRAWN])))
            saved = file_names(stage)
        print(f"Saved in {self.out}: {saved}")


def _arrays(samples: "Samples") -> dict[str, Any]:
    from vae_jax.vae.models.vae import TwoLayers

    latents = samples.latents
    if isinstance(latents, TwoLayers):
        return {"images": samples.images, "latents": latents.lower, "upper_latents": latents.upper}
    return {"images": samples.images, "latents": latents}


def _grid(images: "np.ndarray") -> "Figure":
    from vae_jax import plotting

    return plotting.image_grid(images, num_columns=max(8, math.ceil(math.sqrt(len(images)))))
