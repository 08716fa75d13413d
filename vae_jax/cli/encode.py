"""`vae-jax encode`: the latents of images, for other programs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.opened_runs import first_images, opened_model
from vae_jax.cli.options import Debug, ImageOptions, ModelOptions, Seed, check_options
from vae_jax.files import replacing
from vae_jax.runtime import start_jax


@dataclass(frozen=True)
class EncodeCommand:
    """Encodes images with a trained model, for other programs.

    Saves an .npz whose arrays are means and scales of q(z|x), both [N, D], and labels [N] if there are any. With a
    hierarchical model these are the lower layer's, and upper_means [N, U] are the upper layer's given one sample of it.
    """

    model: ModelOptions
    """The trained model."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """The images."""
    seed: Seed = 0
    out: Annotated[Path, tyro.conf.arg(help="File for the result.")] = Path("vae-jax-codes.npz")
    debug: Debug = False

    def run(self) -> None:
        """Encodes and saves.

        Raises:
            Misuse: the folder holds no run, or an argument is refused.
        """
        check_options(self)
        _check_writable(self.out)
        start_jax("float32", num_cpu_devices=1)
        import jax

        from vae_jax.vae.results.generation import encode_images

        folder, trained = opened_model(self.model)
        seen = first_images(folder, trained, self.images)
        codes = encode_images(trained, seen.pixels, jax.random.key(self.seed))
        arrays: dict[str, Any] = {"means": codes.means, "scales": codes.scales}
        if codes.upper_means.size:
            arrays["upper_means"] = codes.upper_means
        if seen.labels is not None:
            arrays["labels"] = seen.labels
        _write_npz(self.out, arrays)
        print(f"Saved {len(seen.pixels):,} codes of {codes.means.shape[1]} latents in {self.out}")


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise Misuse(f"--out must be a file in a folder that exists, got {path}: make {folder} first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise Misuse(f"--out must be a file that can be written, got {path}: name another")


def _write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all."""
    import numpy as np

    with replacing(path, "wb") as file:
        np.savez(file, **arrays)
