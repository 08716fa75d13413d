"""`vae-jax train` in a process of its own up to the end of its first step: its time and its memory."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.child_process import module_command, with_cache
from benchmarks.process_memory import peak_on_device, peak_resident, restart_peak
from benchmarks.training.training_work import PRESET_NAME


def first_step(data: str, cache: Path) -> dict[str, Any]:
    """The time and the memory of a first step, in a fresh process that keeps its compiled programs in `cache`.

    Raises:
        RuntimeError: the command failed; with its errors.
    """
    command = module_command("benchmarks.training.first_training_step", data, repr(time.time()))
    child = subprocess.run(command, env=with_cache(cache), capture_output=True, text=True)
    if child.returncode:
        raise RuntimeError(f"vae-jax train must reach its first step, got: {child.stderr.strip()}")
    return json.loads(child.stdout)


def memory_of_first_step(num_images: int, num_pixels: int) -> dict[str, Any]:
    """The same on a file of so many images, and their bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        images = np.random.default_rng(0).integers(0, 256, (num_images, num_pixels), dtype=np.uint8)
        np.save(file, images)
        return {"image_bytes": images.nbytes, **first_step(str(file), Path(folder))}


def _main(data: str, started: float) -> None:
    import vae_jax.cli
    from vae_jax.vae.runs.training_run import Run

    resident_after_imports = restart_peak()
    train: Any = Run.train

    def train_one_step(run: Run, state: Any, **options: Any) -> Any:
        def end(_: Any) -> None:
            report = {
                "seconds": time.time() - started,
                "resident_bytes_after_imports": resident_after_imports,
                "peak_resident_bytes_above_imports": peak_resident() - resident_after_imports,
                "peak_device_bytes": peak_on_device(),
            }
            print(json.dumps(report), flush=True)
            os._exit(0)

        options["on_report"] = end
        return train(run, state, **options)

    with tempfile.TemporaryDirectory() as folder, patch.object(Run, "train", train_one_step):
        code = vae_jax.cli.main(["train", PRESET_NAME, "--data", data, "--out", folder])
    sys.exit(f"vae-jax train ended with exit code {code} before a step")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("started", type=float, help="seconds since the epoch")
    return parser.parse_args()


if __name__ == "__main__":
    _main(**vars(_parse()))
