"""The reason that an error gives, for messages of one line."""

import textwrap

LONGEST_REASON = 240
"""Characters."""


def reason(error: BaseException) -> str:
    """The message of an error in one line, or its type where it has none."""
    return textwrap.shorten(str(error) or type(error).__name__, LONGEST_REASON)
