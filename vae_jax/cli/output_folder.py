"""The output folder of a command: whole, or not there."""

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.misuse import Misuse
from vae_jax.files import write_csv, write_json
from vae_jax.settings import flag_of

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


def file_names(folder: Path) -> str:
    """The files of a folder, as a line lists them."""
    return ", ".join(sorted(file.name for file in folder.iterdir()))


def save_table(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any] | None = None
) -> None:
    """Writes rows as NAME.csv, and with what is known about them as NAME.json."""
    write_json(folder / f"{name}.json", {**(about or {}), "rows": rows})
    write_csv(folder / f"{name}.csv", rows)


def save_config(folder: Path, command: str, settings: Mapping[str, Any], *, positional: Collection[str] = ()) -> None:
    """Writes config.json: the settings of a command, and the command line that repeats the run.

    Args:
        folder: where to.
        command: its name.
        settings: each value by the name of its field.
        positional: those of them that the command takes as words without a flag.
    """
    line = command_line(
        [command, *(str(settings[name]) for name in positional if name in settings)],
        {name: value for name, value in settings.items() if name not in positional},
    )
    write_json(folder / "config.json", {"command": command, "settings": settings, "command_line": line})


def command_line(command: Sequence[str], settings: Mapping[str, Any]) -> str:
    """The words that give the settings again."""
    words = ["vae-jax", *command]
    for name, value in settings.items():
        if value is not None:
            words += [flag_of(name), *map(str, value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)
