"""The peak memory of training in a process of its own, above what its imports take."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from speed.memory import _peak_resident, _restart_peak

NUM_STEPS = 20


def measured_peak(num_images: int, num_pixels: int) -> dict[str, Any]:
    """What `_print_peak` prints, in a fresh process."""
    child = subprocess.run(
        [sys.executable, "-m", "training.memory", str(num_images), str(num_pixels)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(child.stdout)


def _print_peak(num_images: int, num_pixels: int) -> None:
    import jax
    import numpy as np

    from training.ours import training_task
    from training.work import PRESET, Work

    jax.config.update("jax_num_cpu_devices", 1)
    resident_after_imports = _restart_peak()
    # Zeros would take no memory until they are written to.
    work = Work(np.ones((num_images, num_pixels), np.uint8), np.ones((1, num_pixels), np.uint8), (num_pixels,))
    training_task(
        work, batch_size=PRESET.training.batch_size, precision="float32", num_seeds=1, num_steps=NUM_STEPS
    )()
    report = {
        "num_images": num_images,
        "image_bytes": work.pixels.nbytes,
        "peak_resident_bytes_above_imports": _peak_resident() - resident_after_imports,
        "resident_bytes_after_imports": resident_after_imports,
        "peak_device_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }
    print(json.dumps(report))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_images", type=int)
    parser.add_argument("num_pixels", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    _print_peak(**vars(_parse()))
