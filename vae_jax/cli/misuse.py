"""Errors that the user can fix: they end in one line and exit code 2."""

import contextlib
from collections.abc import Iterator


class Misuse(Exception):
    """A refused argument. The message says what was expected, what came and what to do."""


@contextlib.contextmanager
def refusals_are_misuse() -> Iterator[None]:
    """Turns the library's refusal of an argument into `Misuse`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise Misuse(str(error)) from error
