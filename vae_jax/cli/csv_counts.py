"""Reading counts from the command line or from a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from vae_jax.cli.misuse import Misuse


def read_counts(data: Sequence[str]) -> tuple[float, ...]:
    """The numbers of `--data`: written out, or in the one file that it names.

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
    """The counts of a file that holds one column, with or without a name on top, or one row."""
    try:
        # Spreadsheets put a byte-order mark first.
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(file), start=1)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise Misuse(f"--data must be counts or a CSV file that can be read, got {path}: {reason}") from error
    lines = [(number, row) for number, row in lines if any(row)]
    if lines and not any(map(_is_number, lines[0][1])) and not any(map(str.isdigit, "".join(lines[0][1]))):
        del lines[0]
    if not lines:
        raise Misuse(f"--data must be a CSV file with a count a line, got {path}, which holds none: add some")
    cells = [(number, cell) for number, row in lines for cell in row]
    if len(lines) > 1 and len(cells) > len(lines):
        raise Misuse(
            f"--data must be a CSV file with one column, got {path} with {len(lines[0][1])}: keep the counts alone"
        )
    for number, cell in cells:
        if not _is_number(cell):
            raise Misuse(
                f"--data must be a CSV file with a count a line, got {cell!r} in line {number} of {path}: mend it"
            )
    return tuple(float(cell) for _, cell in cells)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
