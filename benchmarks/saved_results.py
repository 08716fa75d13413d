"""Results saved as JSON, with the packages and the device that they were measured on."""

import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vae_jax.files import write_json
from vae_jax.runtime import environment

Record: TypeAlias = Mapping[str, Any]
"""Results, or one row of them, by field."""


def described_environment(seed: int, packages: Sequence[str] = (), *, dtype: str = "float32") -> dict[str, Any]:
    """The environment of a run, with the versions of more packages and the number of cores."""
    described = environment(dtype, seed)
    described["versions"] |= {name: _version(name) for name in packages}
    return described | {"cpu_count": os.cpu_count()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def save_results(results: Record, folder: Path | None, name: str) -> None:
    """Writes results as JSON in a folder, made where it is missing. Writes nothing without a folder."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / name, results)
    print(f"saved {name}")
