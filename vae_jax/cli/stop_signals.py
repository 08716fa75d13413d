"""Requests to stop, by Ctrl-C, SIGTERM or the end of the terminal, and how a command answers them in time.

Python's handlers run in the main thread, and only between two of its own instructions: never while XLA compiles or
computes there. So a command runs in a thread of its own, and the main thread waits for it and for signals.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from vae_jax.files import remove_unfinished

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

INTERRUPTED = 130

LONGEST_SAVE = 9.0
"""Seconds that a command which saves itself may take to do so after a request to stop."""

SECONDS_BETWEEN_LOOKS = 0.1


class Stopped(Exception):
    """A command was asked to stop, and has saved what it had. The message says how to continue."""


class _Requests:
    """The requests to stop that have come, where the main thread waits for a command."""

    def __init__(self) -> None:
        self.is_watched = False
        self.number = 0
        self.first: float | None = None
        self.saves_itself = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Counts a signal."""
        self.number += 1
        self.first = self.first or time.monotonic()

    def must_end(self) -> bool:
        """Whether the process must end now: the command does not save itself, or takes too long, or was asked twice."""
        if self.first is None:
            return False
        return not self.saves_itself or self.number > 1 or time.monotonic() - self.first > LONGEST_SAVE


_requests = _Requests()


def in_a_thread(command: Callable[[], int]) -> int:
    """Runs a command in a thread of its own, and ends the process if a request to stop comes that it does not answer.

    Args:
        command: returns the exit code.

    Returns:
        The exit code of the command.

    Raises:
        BaseException: whatever the command raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return command()
    outcome: list[int] = []
    raised: list[BaseException] = []
    is_done = threading.Event()

    def work() -> None:
        try:
            outcome.append(command())
        except BaseException as error:
            raised.append(error)
        finally:
            is_done.set()

    _requests.is_watched = True
    try:
        with _handled(_requests.note):
            threading.Thread(target=work, daemon=True).start()
            while not is_done.wait(SECONDS_BETWEEN_LOOKS):
                if _requests.must_end():
                    _end(was_asked_to_save=_requests.saves_itself)
    finally:
        _requests.is_watched = False
    if raised:
        raise raised[0]
    return outcome[0]


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A function that says whether a request to stop came since. The block has to answer it by saving what it has.

    A second request ends the process at once.
    """
    if _requests.is_watched:
        _requests.saves_itself = True
        try:
            yield lambda: _requests.number > 0
        finally:
            # After a request it still has to report what it saved.
            _requests.saves_itself = _requests.number > 0
        return
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    # Only a main thread can see to signals; without, a stop is an ordinary interruption.
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_handled(note))
        yield lambda: came


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    with contextlib.ExitStack() as restored:
        for number in NUMBERS:
            # A command started by nohup outlives its terminal.
            if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                continue
            restored.callback(signal.signal, number, signal.signal(number, handler))
        yield


def _end(*, was_asked_to_save: bool) -> NoReturn:
    """Ends the process without waiting for what is compiled or computed, and without anything half-written."""
    remove_unfinished()
    lost = "the run continues from its last checkpoint" if was_asked_to_save else "what was not saved yet is lost"
    show_cursor = "\x1b[?25h\r" if sys.stderr is not None and sys.stderr.isatty() else ""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"{show_cursor}vae-jax: error: interrupted: {lost}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    os._exit(INTERRUPTED)
