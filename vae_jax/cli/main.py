"""The command `vae-jax`: parse, call, print, save. Nothing here imports JAX before a command runs."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.parsing import parse
from vae_jax.cli.stop_signals import INTERRUPTED, Stopped

DONE, FAILED, MISUSED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # Whoever read, such as `head`, has had enough.
        code = FAILED
    return code if _is_flushed() else FAILED


def _is_flushed() -> bool:
    """Whether standard output took all that was printed. If not, the rest is dropped: Python would fail at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _main(arguments: list[str]) -> int:
    try:
        command = parse(arguments)
    except Misuse as error:
        return _report(error, MISUSED)
    try:
        command.run()
    except Misuse as error:
        return _report(_with_flags(str(error), command), MISUSED, debug=command.debug)
    except Stopped as stop:
        print(f"vae-jax: {stop}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        return _report("interrupted: what was not saved yet is lost", INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:
        return _report(_failure(error, command), FAILED, debug=command.debug)
    return DONE


def _with_flags(refusal: str, command: Any) -> str:
    """The library's refusal of an argument, with the names that the command line has for its arguments.

    Only names with an underscore are replaced: others may be words of the sentence, or parameters of a problem.
    """
    from vae_jax.cli.command_flags import flags_of
    from vae_jax.settings import flag_of

    flags = flags_of(type(command))
    return re.sub(
        r"\b[a-z]+(_[a-z]+)+\b", lambda name: flag_of(name[0]) if flag_of(name[0]) in flags else name[0], refusal
    )


def _failure(error: Exception, command: Any) -> str:
    from vae_jax.cli.out_of_memory import is_out_of_memory, out_of_memory

    if is_out_of_memory(error):
        return out_of_memory(error, type(command))
    return f"{type(error).__name__}: {error}"


def _report(error: object, code: int, *, debug: bool = False) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print("vae-jax: error:", " ".join(str(error).split()), file=sys.stderr)
    return code
