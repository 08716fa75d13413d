"""The output folder of a command: whole, or not there."""

import contextlib
import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.misuse import Misuse

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder whose files move into `out` when the block ends without an error, and vanish otherwise.

    Raises:
        Misuse: `out` cannot be made or written to.
    """
    made = _first_missing(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".partial-", dir=out))
    except OSError as error:
        _remove(made)
        raise Misuse(f"--out must be a folder that can be written to, got {out}: {error.strerror}") from error
    try:
        yield stage
        for file in stage.iterdir():
            os.replace(file, out / file.name)
    except BaseException:
        _remove(made)
        raise
    finally:
        _remove(stage)


def _first_missing(folder: Path) -> Path | None:
    """The outermost folder on the way to `folder` that does not exist yet."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    return missing[-1] if missing else None


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def save_json(path: Path, content: Any) -> None:
    """Writes JSON, with null for what is not finite: JSON has no NaN."""
    path.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return str(content) if isinstance(content, Path) else content


def save_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the header of their keys."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def save_figure(folder: Path, name: str, figure: "Figure") -> None:
    """Writes a figure as PNG and PDF."""
    figure.savefig(folder / f"{name}.png", dpi=200)
    figure.savefig(folder / f"{name}.pdf")
