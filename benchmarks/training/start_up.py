"""The time from the start of a process to the end of the first steps of a training run in it."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measured_start(data: str, cache: Path) -> dict[str, Any]:
    """What `_print_start` prints, in a fresh process that keeps its compiled programs in `cache`."""
    variables = os.environ | {"XDG_CACHE_HOME": str(cache), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", "training.start_up", data, repr(time.time())]
    child = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(child.stdout)


def _print_start(data: str, started: float) -> None:
    import jax

    from vae_jax.cli.startup import start_jax
    from vae_jax.vae.data import load_images
    from vae_jax.vae.presets import DEFAULT_PRESET, PRESETS
    from vae_jax.vae.run_folder import RunFolder
    from vae_jax.vae.runs import Report, Run

    start_jax("float32")
    jax.config.update("jax_num_cpu_devices", 1)
    report = {"imports_seconds": time.time() - started}
    images = load_images(data)
    report["data_seconds"] = time.time() - started

    def note(_: Report) -> None:
        report.setdefault("first_steps_seconds", time.time() - started)

    with tempfile.TemporaryDirectory() as folder:
        run = Run(PRESETS[DEFAULT_PRESET], images, RunFolder(Path(folder) / "run"))
        run.train(
            run.start(),
            should_stop=lambda: "first_steps_seconds" in report,
            on_report=note,
            seconds_between_checkpoints=math.inf,
        )
    print(json.dumps(report))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("started", type=float, help="seconds since the epoch")
    return parser.parse_args()


if __name__ == "__main__":
    _print_start(**vars(_parse()))
