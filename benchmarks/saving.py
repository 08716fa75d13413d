"""What benchmarks write: results with what they were measured on, and figures."""

import importlib.metadata
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from vae_jax.runtime import environment


def environment_with(packages: Sequence[str], seed: int) -> dict[str, Any]:
    """The environment of a run in float32, with the versions of more packages and the number of cores."""
    described = environment("float32", seed)
    described["versions"] |= {name: _version(name) for name in packages}
    return described | {"cpu_count": os.cpu_count()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def save_results(results: Mapping[str, Any], path: Path) -> None:
    """Writes results as JSON, in a folder that is made if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    print(f"saved {path.name}")


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure of flat colours with a palette of 128, which takes a third of the bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=200)
    Image.open(drawn).convert("RGB").quantize(128).save(path, dpi=(200, 200), optimize=True)
