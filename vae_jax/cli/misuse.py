"""What a user can mend: ends in one line and exit code 2."""

import contextlib
from collections.abc import Iterator


class Misuse(Exception):
    """Says what was expected, what came and what to do."""


@contextlib.contextmanager
def refusals_are_misuse() -> Iterator[None]:
    """Turns the library's refusal of its arguments into the user's."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise Misuse(str(error)) from error
