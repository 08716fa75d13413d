"""`python -m vae_jax` is the command `vae-jax`."""

import os
import signal
import sys


def run() -> int:
    """Runs the command in this process. A request to stop during the imports ends the process silently."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # A command started by nohup outlives its terminal.
    numbers = [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, lambda number, frame: os._exit(130))
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before the start.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    from vae_jax.cli import main
    from vae_jax.cli.stop_signals import in_a_thread

    try:
        return in_a_thread(main)
    finally:
        # The work is done: while Python ends, a request would kill it by the signal.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(run())
