"""JSON that carries its own SHA-256, so that a file that was cut, altered or mixed up is not read for another."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_jax.files import json_ready, reason, replacing

SEAL = "sha256"


class BrokenSeal(ValueError):
    """A file is not as it was written. The message is one line that names the file."""


def digest_of(content: Any, before: str = "") -> str:
    """The SHA-256 of JSON, after another digest where it continues something.

    Args:
        content: what JSON can hold.
        before: the digest of what came before.

    Example:
        >>> from vae_jax.sealed_json import digest_of
        >>> digest_of({"epoch": 1})[:8], digest_of({"epoch": 1}, before=digest_of({"epoch": 0}))[:8]
        ('becef8ff', 'fade5342')
    """
    return hashlib.sha256(before.encode() + json.dumps(content, allow_nan=False).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> bytes:
    """JSON that ends in the SHA-256 of the rest."""
    return json.dumps({**content, SEAL: digest_of(content)}, indent=1, allow_nan=False).encode() + b"\n"


def unsealed(written: bytes, path: Path) -> dict[str, Any]:
    """The content of sealed JSON, without its seal.

    The bytes must be those that `sealed` writes, so that no flipped bit passes as another spelling of the same JSON.

    Args:
        written: the bytes of a file.
        path: the file, for the message.

    Raises:
        BrokenSeal: they are not as they were written.
    """
    content = json_object(written, path)
    seal = content.pop(SEAL, None)
    if seal is None:
        raise BrokenSeal(f"{path} must end in its {SEAL}, got none")
    try:
        is_whole = sealed(content) == written
    except ValueError:  # Infinity, which is not written.
        is_whole = False
    if not is_whole:
        raise BrokenSeal(f"{path} must be as it was written, got another SHA-256 than it says")
    return content


def json_object(written: bytes, path: Path) -> dict[str, Any]:
    """The JSON object that bytes hold.

    Raises:
        BrokenSeal: they hold none.
    """
    try:
        content = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BrokenSeal(f"{path} must be JSON, got {reason(error)}") from error
    if not isinstance(content, dict):
        raise BrokenSeal(f"{path} must be a JSON object, got {type(content).__name__}")
    return content


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Writes sealed JSON, with null for what is not finite."""
    with replacing(path, "wb") as file:
        file.write(sealed(json_ready(content)))
