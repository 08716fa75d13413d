"""`vae-jax encode`: the latents of images, for other programs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.opened_runs import images_of_run
from vae_jax.cli.options import check_seed
from vae_jax.cli.trained_models import images_seen, opened_model
from vae_jax.runtime import start_jax


@dataclass(frozen=True)
class EncodeCommand:
    """Encodes the images of a split.

    Saves an .npz whose arrays are means and scales of q(z|x), both [N, D], and labels [N] if there are any. Of a
    hierarchical model these are the lower layer's, and upper_means [N, U] are the upper one's at one draw of it.
    """

    folder: tyro.conf.Positional[Path]
    """Of the run."""
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
    seed: int = 0
    """Of the draws of a hierarchical model."""
    out: Path = Path("vae-jax-codes.npz")
    """File for the result."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Encodes and saves.

        Raises:
            Misuse: no run, or arguments that no codes can be had for.
        """
        check_seed(self.seed)
        _check_writable(self.out)
        start_jax("float32", num_cpu_devices=1)
        import jax

        from vae_jax.vae.results.generation import encode_images

        folder, trained = opened_model(self.folder, checkpoint=self.checkpoint, model_seed=self.model_seed)
        images = images_of_run(folder, trained.experiment, data=self.data, data_dir=self.data_dir)
        seen = images_seen(trained, images, self.split)
        codes = encode_images(trained, seen, jax.random.key(self.seed))
        arrays: dict[str, Any] = {"means": codes.means, "scales": codes.scales}
        if codes.upper_means.size:
            arrays["upper_means"] = codes.upper_means
        labels = getattr(images, self.split).labels
        if labels is not None:
            arrays["labels"] = labels
        _write_npz(self.out, arrays)
        print(f"Saved {len(seen):,} codes of {codes.means.shape[1]} latents in {self.out}")


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise Misuse(f"--out must be a file in a folder that exists, got {path}: make {folder} first")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise Misuse(f"--out must be a file that can be written, got {path}: name another")


def _write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all."""
    import numpy as np

    unfinished = path.with_name(f".{path.name}.partial")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
