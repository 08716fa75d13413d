"""The output folder of a command: whole, or not there."""

import contextlib
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.misuse import Misuse
from vae_jax.files import (
    FolderInUse,
    locked,
    new_folders,
    publishing,
    require_plain_file,
    unfinished_folder,
    write_csv,
    write_json,
)
from vae_jax.settings import flag_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder whose files move into `out` when the block ends without an error, and vanish otherwise.

    Folders that were made for it vanish too, unless another process has put something there meanwhile.

    Raises:
        Misuse: `out` cannot be made or written to, or another process writes to it.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(new_folders(out))
            stack.enter_context(locked(out))
            stage = stack.enter_context(unfinished_folder(out))
        except FolderInUse as error:
            raise Misuse(str(error)) from error
        except OSError as error:
            reason = error.strerror or error
            raise Misuse(f"--out must be a folder that can be written to, got {out}: {reason}") from error
        yield stage
        with publishing():
            files = list(stage.iterdir())
            for file in files:
                require_plain_file(out / file.name)
            for file in files:
                os.replace(file, out / file.name)


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
