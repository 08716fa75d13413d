"""Words of the command line to a command, and what is wrong with them in one line."""

import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from typing import Any

from vae_jax.cli.commands import COMMANDS, commands_of
from vae_jax.cli.misuse import Misuse

NUM_SIMILAR = 3
"""Flags that an unknown one is likened to."""


def parse(arguments: Sequence[str]) -> Any:
    """The command that the words give. Asked for help, it prints that and exits with code 0.

    Raises:
        Misuse: words that are no command, or not what it takes.
    """
    first = next(iter(arguments), "--help")
    if first not in COMMANDS and not first.startswith(("-h", "--help", "--tyro-")):
        raise Misuse(f"the command must be one of {', '.join(COMMANDS)}, got {first}: vae-jax --help tells of each")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            command, unknown = _parsed(arguments or ["--help"])
    except SystemExit as exit_:
        if exit_.code in (0, None):
            # What was printed must go out, or fail to, where that can still be caught.
            print(end="", flush=True)
            raise
        raise Misuse(_in_words(errors.getvalue(), arguments)) from None
    if unknown:
        raise Misuse(f"Unrecognized options: {', '.join(unknown)}: {_advice(unknown[0], first)}")
    return command


def _parsed(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """The command, and the words that it has no use for."""
    import tyro

    commands, arguments = commands_of(arguments)
    return tyro.cli(
        commands,
        prog="vae-jax",
        description="Variational inference by Monte Carlo: gradient estimators, and how good they are; VAEs.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        return_unknown_args=True,
    )


def flags_of(name: str) -> list[str]:
    """The flags of a command, as its help shows them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _parsed([name, "--help"])
    return re.findall(r"^(?:│ | *)(--[a-z][\w-]*)", _without_colours(text.getvalue()), re.MULTILINE)


def _advice(unknown: str, name: str) -> str:
    """The flags of the command that are like an unknown one, and where the others are."""
    flag = unknown.partition("=")[0].replace("_", "-")
    flags = flags_of(name)
    longer = [each for each in flags if flag.startswith("--") and each.startswith(flag)]
    similar = longer or difflib.get_close_matches(flag, flags, cutoff=0.7)
    meant = f"perhaps {' or '.join(similar[:NUM_SIMILAR])}; " if similar else ""
    return f"{meant}vae-jax {name} --help lists those that there are"


def _in_words(text: str, arguments: Sequence[str]) -> str:
    """The error that tyro drew, in one line."""
    sentence = _without_box(text)
    found = re.match(r"Error parsing (--[\w-]+): .* Argument helptext: \1 (\S+)(.*)", sentence)
    if found is None:
        return sentence
    flag, kind, rest = found.groups()
    number = "whole number" if "INT" in kind else "number" if "FLOAT" in kind else None
    if number is None:
        return sentence
    is_one = "[" not in kind and not rest.startswith((" INT", " FLOAT"))
    words = f"a {number}" if is_one else f"{number}s"
    return f"{flag} must be {words}, got {_given(flag, arguments)}: vae-jax {arguments[0]} --help tells of it"


def _given(flag: str, arguments: Sequence[str]) -> str:
    """The words after a flag, up to the next."""
    given: list[str] = []
    is_after = False
    for word in arguments:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            is_after = name.replace("_", "-") == flag
            given += [value] if is_after and equals else []
        elif is_after:
            given.append(word)
    return " ".join(given) or "none"


def _without_box(text: str) -> str:
    """The sentences in the boxes that tyro draws, on one line. Its ASCII boxes have no sides."""
    text = _without_colours(text)
    drawn = [line for line in text.splitlines() if line.startswith("│")] or text.splitlines()[1:]
    lines = [line.strip("│ ") for line in drawn]
    return " ".join(line for line in lines if line and not re.fullmatch("[─-]+", line))


def _without_colours(text: str) -> str:
    """What a terminal shows, in which tyro sets colours by whether standard output is one."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
