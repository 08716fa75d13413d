"""Files of a run that are changed on purpose, with a new seal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vae_jax.sealed_json import SEAL, sealed


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the content of sealed JSON in place, and seals it again."""
    content = json.loads(path.read_text())
    del content[SEAL]
    change(content)
    path.write_bytes(sealed(content))


def without_seal(path: Path) -> dict[str, Any]:
    """The content of sealed JSON."""
    return {name: value for name, value in json.loads(path.read_text()).items() if name != SEAL}
