"""Stops between two steps, on Ctrl-C or SIGTERM."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


class Stopped(Exception):
    """A command was asked to stop, and has saved what it had. The message says how to continue."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C or SIGTERM came since. A second one interrupts at once."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    with contextlib.ExitStack() as restored:
        # Only a main thread can see to signals; without, a stop is an ordinary interruption.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGINT, signal.SIGTERM):
                restored.callback(signal.signal, number, signal.signal(number, note))
        yield lambda: came
