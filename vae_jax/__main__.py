"""`python -m vae_jax` is the command `vae-jax`."""

import os
import signal
import sys


def run() -> int:
    """Runs the command in this process. A request to stop during its imports ends it without a word."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: os._exit(130))
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before the start.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    from vae_jax.cli import main
    from vae_jax.cli.stop_signals import in_a_thread

    return in_a_thread(main)


if __name__ == "__main__":
    sys.exit(run())
