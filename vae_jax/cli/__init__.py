"""The command `vae-jax`: parse, call, print, save. Nothing here imports JAX before a command runs."""

import contextlib
import io
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from vae_jax.cli.commands import commands_of
from vae_jax.cli.misuse import Misuse
from vae_jax.cli.stopping import Stopped

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = _parse(arguments)
    except Misuse as error:
        return _report(error, MISUSED)
    with contextlib.suppress(ValueError):
        # A polite request to end is cleaned up after as Ctrl-C is. Only a main thread can see to that.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command.run()
    except Misuse as error:
        return _report(error, MISUSED, debug=command.debug)
    except Stopped as stop:
        print(f"vae-jax: {stop}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        return _report("interrupted: what was not saved yet is lost", INTERRUPTED)
    except Exception as error:
        return _report(f"{type(error).__name__}: {error}", FAILED, debug=command.debug)
    return DONE


def _parse(arguments: Sequence[str]) -> Any:
    import tyro

    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            commands, arguments = commands_of(arguments)
            return tyro.cli(
                commands,
                prog="vae-jax",
                description="Variational inference by Monte Carlo: gradient estimators, and how good they are; VAEs.",
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as exit_:
        if exit_.code in (DONE, None):
            raise
        raise Misuse(_without_box(errors.getvalue())) from None


def _without_box(text: str) -> str:
    """The sentences in the boxes that tyro draws, on one line. Its ASCII boxes have no sides."""
    drawn = [line for line in text.splitlines() if line.startswith("│")] or text.splitlines()[1:]
    lines = [line.strip("│ ") for line in drawn]
    return " ".join(line for line in lines if line and not re.fullmatch("[─-]+", line))


def _report(error: object, code: int, *, debug: bool = False) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print("vae-jax: error:", " ".join(str(error).split()), file=sys.stderr)
    return code
