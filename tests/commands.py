"""Commands run in the process of the tests, which has imported and compiled much of what they need."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from vae_jax.cli import main
from vae_jax.cli.commands import COMMANDS

PREFIX = "vae-jax: error: "


def run_command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """The exit code and what was printed, as of a process that was started in a folder with 80 columns.

    JAX is at work already: of what a command would set before its start, the precision alone is set.
    """
    words = [str(argument) for argument in arguments]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(mock.patch.dict(os.environ, COLUMNS="80"))
        stack.enter_context(_started())
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        try:
            code = main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


def run_process(*arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess:
    """The same of a process of its own, which starts JAX itself."""
    return subprocess.run(words_of_process(*arguments), capture_output=True, **settings_of_process(cwd), **options)


def refusal(process: subprocess.CompletedProcess) -> str:
    """The one line that a refused command prints, without its prefix. A line may say before it what is compiled."""
    assert process.returncode == 2, process.stderr
    (line,) = [line for line in process.stderr.splitlines() if not line.startswith("compiling")]
    assert line.startswith(PREFIX)
    return line.removeprefix(PREFIX)


def words_of_process(*arguments: object) -> list[str]:
    """The words that start a command."""
    return [sys.executable, "-m", "vae_jax", *map(str, arguments)]


def settings_of_process(cwd: Path) -> dict[str, Any]:
    """The arguments of `subprocess.Popen` that start a command in a folder, with 80 columns."""
    environment = os.environ | {"XDG_CACHE_HOME": str(cwd / "cache"), "JAX_PLATFORMS": "cpu", "COLUMNS": "80"}
    return {"cwd": cwd, "env": environment, "text": True}


@contextlib.contextmanager
def _started() -> Iterator[None]:
    """Stands in for what commands call at their start, and sets back what they change in a process."""
    is_double = jax.config.jax_enable_x64
    try:
        with contextlib.ExitStack() as stack:
            for module in {command.__module__ for command in COMMANDS.values()}:
                if hasattr(sys.modules[module], "start_jax"):
                    stack.enter_context(mock.patch.object(sys.modules[module], "start_jax", _start))
            yield
    finally:
        jax.config.update("jax_enable_x64", is_double)


def _start(*arguments: Any, **settings: Any) -> None:
    # Looked up when it is called, so that a test may refuse to come so far.
    set_precision(*arguments, **settings)


def set_precision(dtype: str = "float32", *, num_cpu_devices: int | None = None) -> None:
    jax.config.update("jax_enable_x64", dtype == "float64")
