"""Words of the command line to a command, and what is wrong with them in one line."""

import contextlib
import difflib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from vae_jax.cli.command_flags import flags_of
from vae_jax.cli.commands import COMMANDS, commands_of
from vae_jax.cli.misuse import Misuse

NUM_SIMILAR = 3
"""Flags that an unknown one is likened to."""

REFUSED = r"(?:Error parsing |invalid choice .* for argument '|Missing value for argument ')"
"""The words of tyro before the name of a flag whose values it refuses."""


def parse(arguments: Sequence[str]) -> Any:
    """The command that the words give. Asked for help, it prints that and exits with code 0.

    Raises:
        Misuse: words that are no command, or not what it takes.
    """
    first = next(iter(arguments), "--help")
    if first not in COMMANDS and not first.startswith(("-h", "--help", "--tyro-")):
        raise Misuse(f"the command must be one of {', '.join(COMMANDS)}, got {first}: vae-jax --help explains each")
    errors = io.StringIO()
    # The lines of a script for a shell's completion must stay whole.
    output = contextlib.nullcontext() if first.startswith("--tyro-") else _wrapped_output()
    try:
        with output, contextlib.redirect_stderr(errors):
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
        description="Variational inference by Monte Carlo: gradient estimators and their quality, and VAEs.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        return_unknown_args=True,
    )


@contextlib.contextmanager
def _wrapped_output() -> Iterator[None]:
    """Breaks the lines of help that are too long for the terminal. tyro breaks those in boxes only."""
    terminal, width = sys.stdout, shutil.get_terminal_size().columns
    text = _TerminalText()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:
        for line in map(_shortly_titled, text.lines()):
            terminal.write(line if len(_without_colours(line)) <= width + 1 else _wrapped(line, width))


class _TerminalText(io.TextIOWrapper):
    """Text for standard output, whose colours and boxes tyro chooses by what standard output is."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), sys.stdout.encoding, newline="", write_through=True)
        self._terminal = sys.stdout

    def isatty(self) -> bool:
        return self._terminal.isatty()

    def lines(self) -> list[str]:
        """The written lines, with their ends."""
        self.seek(0)
        return self.readlines()


def _shortly_titled(line: str) -> str:
    """The line, and if it is the top of a box of nested options, only the last of the names that they are nested in."""
    title = re.fullmatch(r"[╭─ ]*((?:[\w-]+\.)+)[\w-]+ options[─╮ ]*", _without_colours(line).rstrip("\r\n"))
    if title is None:
        return line
    return line.replace(title[1], "", 1).replace("╮", "─" * len(title[1]) + "╮")


def _wrapped(line: str, width: int) -> str:
    # The names of commands, which tyro lists without blanks, may be broken between two of them.
    line = re.sub(r"\{[\w,-]+\}", lambda names: names[0].replace(",", ", "), line)
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False) + "\n"


def _advice(unknown: str, name: str) -> str:
    """The flags of the command that are like an unknown one, and where the others are."""
    flag = unknown.partition("=")[0].replace("_", "-")
    flags = list(flags_of(COMMANDS[name]))
    longer = [each for each in flags if flag.startswith("--") and each.startswith(flag)]
    similar = longer or difflib.get_close_matches(flag, flags, cutoff=0.7)
    meant = f"perhaps {' or '.join(similar[:NUM_SIMILAR])}; " if similar else ""
    return f"{meant}vae-jax {name} --help lists the options"


def _in_words(text: str, arguments: Sequence[str]) -> str:
    """The error that tyro drew, in one line: our own sentence where a value is not what its flag must be."""
    sentence = _without_box(text)
    found = re.match(rf"{REFUSED}(--[\w-]+)", sentence)
    if found is None:
        return sentence
    name, flag = arguments[0], found[1]
    expected = flags_of(COMMANDS[name]).get(flag)
    if expected is None:
        return sentence
    return f"{flag} must be {expected}, got {_given(flag, arguments)}: vae-jax {name} --help explains it"


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
    sentence = " ".join(line for line in lines if line and not re.fullmatch("[─-]+", line))
    sentence = sentence.replace(" (required)", "")
    return re.sub(r"\.? For full helptext, (?:run|see):? (.*--help)$", r": \1 explains it", sentence)


def _without_colours(text: str) -> str:
    """The text without the codes of colours, which tyro writes if standard output is a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
