"""Reading named columns of numbers from a CSV file."""

import csv
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax.cli.misuse import Misuse

if TYPE_CHECKING:
    import numpy as np

Record = tuple[int, list[str]]
"""The number of the file's line, from 1, and the cells without the blanks around them."""


def read_columns(path: Path, names: Sequence[str], *, counts: Collection[str] = ()) -> "dict[str, np.ndarray]":
    """The named columns [N] of a file whose first line holds the names; other columns may hold anything.

    Args:
        path: the file.
        names: which columns to read.
        counts: those among them that must hold natural numbers. The others may hold any finite ones.

    Raises:
        Misuse: the file cannot be read, has no header or no rows below it, lacks a column, or a cell is not what its
            column must hold. Lines are numbered as an editor does.
    """
    records = list(_records(path))
    if not records:
        raise Misuse(f"{path} must have a line of column names and rows of numbers, got an empty file: choose another")
    (_, header), *rows = records
    if all(map(_is_number, header)):
        raise Misuse(f"{path} must begin with a line of column names, got {','.join(header)}: add such a line on top")
    places = {name: _place(name, header, path) for name in names}
    if not rows:
        raise Misuse(f"{path} must have rows of numbers below its column names, got none: add some")
    for line, cells in rows:
        if len(cells) != len(header):
            raise Misuse(
                f"{path} must have {len(header)} cells a line, as its first line has, got {len(cells)} in line {line}: "
                "mend the line"
            )
    return {name: _read_column(name, rows, place, path, name in counts) for name, place in places.items()}


def _records(path: Path) -> Iterator[Record]:
    try:
        # Spreadsheets put a byte-order mark first.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise Misuse(f"the data must be a CSV file that can be read, got {path}: {reason}") from error


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
        value = _number(cells[place])
        if not math.isfinite(value) or (counted and not _is_natural(value)):
            shown = cells[place] or "an empty cell"
            raise Misuse(
                f"column '{name}' of {path} must hold {kind}, got {shown} in line {line}: mend the line or leave it out"
            )
        column[number] = value
    return column


def _number(cell: str) -> float:
    """The number, or NaN where there is none."""
    # Python reads 1_000 as a thousand; other programs do not.
    return float(cell) if _is_number(cell) else math.nan


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_natural(number: float) -> bool:
    return number >= 0 and number == math.floor(number)
