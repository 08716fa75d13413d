"""Reading counts from the command line or from a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from vae_jax.cli.misuse import Misuse


def read_counts(data: Sequence[str]) -> tuple[float, ...]:
    """The numbers of `--data`: written out, or in the first column of the one file that it names.

    Raises:
        Misuse: a value that is not a number, or a file that cannot be read or holds none.
    """
    if len(data) == 1 and not _is_number(data[0]):
        return _read_file(Path(data[0]))
    for number, text in enumerate(data, start=1):
        if not _is_number(text):
            raise Misuse(f"--data must be counts or one CSV file, got {text!r} as value {number} of {len(data)}")
    return tuple(float(text) for text in data)


def _read_file(path: Path) -> tuple[float, ...]:
    try:
        with path.open(newline="") as file:
            lines = [(number, row[0].strip()) for number, row in enumerate(csv.reader(file), start=1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise Misuse(f"--data must be counts or a CSV file that can be read, got {path}: {reason}") from error
    if lines and not _is_number(lines[0][1]):
        del lines[0]
    if not lines:
        raise Misuse(f"--data must be a CSV file with a count a line, got {path}, which holds none")
    for number, text in lines:
        if not _is_number(text):
            raise Misuse(f"--data must be a CSV file with a count a line, got {text!r} in line {number} of {path}")
    return tuple(float(text) for _, text in lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
