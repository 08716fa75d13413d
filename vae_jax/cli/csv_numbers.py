"""Reading numbers from CSV files: named columns of a table, or counts alone."""

import csv
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vae_jax.cli.misuse import Misuse

if TYPE_CHECKING:
    import numpy as np


class Record(NamedTuple):
    """A row that is not blank."""

    line: int
    """The line of the file in which the row ends, from 1, as an editor numbers it."""
    cells: list[str]
    """Without the blanks around them."""


def read_columns(path: Path, names: Sequence[str], *, counts: Collection[str] = ()) -> "dict[str, np.ndarray]":
    """The named columns [N] of a file whose first line holds the names; other columns may hold anything.

    Args:
        path: the file.
        names: which columns to read.
        counts: those among them that must hold natural numbers. The others may hold any finite ones.

    Raises:
        Misuse: the file cannot be read, has no header or no rows below it, lacks a column, or a cell is not what its
            column must hold.
    """
    records = _records(path, "the data must be a CSV file")
    if not records:
        raise Misuse(f"{path} must have a line of column names and rows of numbers, got an empty file: choose another")
    (_, header), *rows = records
    if all(map(is_number, header)):
        raise Misuse(f"{path} must begin with a line of column names, got {','.join(header)}: add such a line on top")
    places = {name: _place(name, header, path) for name in names}
    if not rows:
        raise Misuse(f"{path} must have rows of numbers below its column names, got none: add some")
    for line, cells in rows:
        if len(cells) != len(header):
            raise Misuse(
                f"{path} must have {len(header)} cells a line, as its first line has, got {len(cells)} in line {line}: "
                "correct the line"
            )
    return {name: _read_column(name, rows, place, path, name in counts) for name, place in places.items()}


def read_counts(data: Sequence[str]) -> tuple[float, ...]:
    """The counts of `--data`: written out, or in the one file that it names.

    Raises:
        Misuse: a value that is not a number, or a file that cannot be read or holds no counts.
    """
    if len(data) == 1 and not is_number(data[0]):
        return _read_counts_file(Path(data[0]))
    for number, text in enumerate(data, start=1):
        if not is_number(text):
            raise Misuse(
                f"--data must be counts or one CSV file, got {text!r} as value {number} of {len(data)}: correct it"
            )
    return tuple(float(text) for text in data)


def _read_counts_file(path: Path) -> tuple[float, ...]:
    """The counts of a file that holds one column, with or without a name on top, or one row."""
    records = _records(path, "--data must be counts or a CSV file")
    if records and _is_header(records[0].cells):
        del records[0]
    if not records:
        raise Misuse(f"--data must be a CSV file with a count a line, got {path}, which holds none: add some")
    cells = [(line, cell) for line, row in records for cell in row]
    if len(records) > 1 and len(cells) > len(records):
        raise Misuse(
            f"--data must be a CSV file with one column, got {path} with {len(records[0].cells)}: keep the counts alone"
        )
    for line, cell in cells:
        if not is_number(cell):
            raise Misuse(
                f"--data must be a CSV file with a count a line, got {cell!r} in line {line} of {path}: correct it"
            )
    return tuple(float(cell) for _, cell in cells)


def _is_header(cells: Sequence[str]) -> bool:
    """Whether cells are names: a mistyped number, such as 3O, is none."""
    return not any(map(is_number, cells)) and not any(map(str.isdigit, "".join(cells)))


def _records(path: Path, expected: str) -> list[Record]:
    try:
        # Spreadsheets put a byte-order mark first.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            records = [Record(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise Misuse(f"{expected} that can be read, got {path}: {reason}") from error
    return [record for record in records if any(record.cells)]


def _place(name: str, header: Sequence[str], path: Path) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise Misuse(f"{path} must have one column '{name}', got {header.count(name)} of them: rename all but one")
    shown = ", ".join(cell for cell in header if cell)
    raise Misuse(f"{path} must have a column '{name}', got {shown}: name one of these")


def _read_column(name: str, rows: Sequence[Record], place: int, path: Path, counted: bool) -> "np.ndarray":
    import numpy as np

    kind = "natural numbers" if counted else "finite numbers"
    column = np.empty(len(rows))
    for number, (line, cells) in enumerate(rows):
        value = float(cells[place]) if is_number(cells[place]) else math.nan
        if not math.isfinite(value) or (counted and not _is_natural(value)):
            shown = cells[place] or "an empty cell"
            raise Misuse(
                f"column '{name}' of {path} must hold {kind}, got {shown} in line {line}: correct the line, or leave "
                "it out"
            )
        column[number] = value
    return column


def is_number(text: str) -> bool:
    """Whether a text is a number to every program: Python alone reads 1_000 as a thousand."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_natural(number: float) -> bool:
    return number >= 0 and number == math.floor(number)
