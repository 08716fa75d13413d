"""Files that are written whole or not at all, so that they outlive the process, and why one cannot be read."""

import contextlib
import csv
import json
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

LONGEST_REASON = 240
"""Characters."""


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes the place of `path` when the block ends without an error.

    Args:
        path: the file.
        mode: w for text, wb for bytes.
    """
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        with unfinished.open(mode, newline="" if mode == "w" else None) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, with null for what is not finite: JSON has no NaN."""
    with replacing(path) as file:
        file.write(json.dumps(json_ready(content), indent=1, allow_nan=False) + "\n")


def append_json_line(path: Path, content: Any) -> None:
    """Adds a line of JSON to a file, on disk when this returns."""
    with path.open("a") as file:
        file.write(json.dumps(json_ready(content), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the header of their keys."""
    with replacing(path) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def json_ready(content: Any) -> Any:
    """The content as JSON can hold it: null for floats that are not finite, text for paths."""
    if isinstance(content, Mapping):
        return {key: json_ready(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_ready(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return str(content) if isinstance(content, Path) else content


def reason(error: BaseException) -> str:
    """The message of an error in one line, or its type where it has none."""
    return textwrap.shorten(str(error) or type(error).__name__, LONGEST_REASON)
