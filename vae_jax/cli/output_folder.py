"""The output folder of a command: whole, or not there."""

import contextlib
import os
import shlex
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


def save_figure(folder: Path, name: str, figure: "Figure") -> None:
    """Writes a figure as PNG and PDF."""
    figure.savefig(folder / f"{name}.png", dpi=200)
    figure.savefig(folder / f"{name}.pdf")


def command_line(command: Sequence[str], settings: Mapping[str, Any]) -> str:
    """The words that give the settings again."""
    words = ["vae-jax", *command]
    for name, value in settings.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)
