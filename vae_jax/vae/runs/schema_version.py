"""The version of the files of a run: what this version of the library writes, and all that it reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 2
"""Goes up by one with every change to config.json, metrics.jsonl, summary.json or a checkpoint that an older version of
the library would misread, or that leaves older files unreadable."""


class OtherSchema(ValueError):
    """A file of a run was written by another version of the library. The message is one line."""


def check_schema_version(content: Mapping[str, Any], file: Path) -> None:
    """Refuses a file of a run with another schema version, or without one.

    Args:
        content: the JSON object that the file holds.
        file: for the message.

    Raises:
        OtherSchema: one line that says what was found, what is read and what to do.
    """
    found = content.get("schema_version")
    if found == SCHEMA_VERSION and type(found) is int:
        return
    is_newer = isinstance(found, int) and found > SCHEMA_VERSION
    advice = "update vae_jax" if is_newer else "train anew, or use the version of vae_jax that wrote it"
    raise OtherSchema(
        f"{file} must have schema_version {SCHEMA_VERSION}, which this version of vae_jax reads, got "
        f"{'none, as from before there were any' if found is None else found}: {advice}"
    )
