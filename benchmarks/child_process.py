"""Modules of benchmarks run in processes of their own."""

import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]


def module_command(module: str, *arguments: object) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment, in which a child finds the checkout and leaves a GPU's memory to others.

    A process that takes its share of a GPU in advance leaves too little for its children.
    """
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    here = {"PYTHONPATH": os.pathsep.join(paths), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return os.environ | here | variables


def with_cache(folder: Path) -> dict[str, str]:
    """The same environment with compiled programs kept under a folder."""
    variables = child_environment(XDG_CACHE_HOME=str(folder))
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)
    return variables
