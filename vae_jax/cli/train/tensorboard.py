"""Events for TensorBoard, where the extra is installed."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vae_jax.cli.misuse import Misuse


def check_tensorboard() -> None:
    """Refuses to write events without the library for it.

    Raises:
        Misuse: it is not installed.
    """
    if importlib.util.find_spec("tensorboardX") is None:
        raise Misuse("--tensorboard needs the extra tensorboard, got an environment without: pip install tensorboardX")


@contextlib.contextmanager
def event_writer(folder: Path, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes an epoch's metrics as events of TensorBoard.

    Args:
        folder: for the events.
        done: epochs that were done before; events of later ones, from before an interruption, are taken back.
    """
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:

        def write(row: dict[str, Any]) -> None:
            for name, value in row.items():
                by_seed = value if isinstance(value, list) else [value]
                for seed, number in enumerate(by_seed):
                    if number is not None:
                        writer.add_scalar(f"{name}/{seed}" if len(by_seed) > 1 else name, number, row["epoch"])
            writer.flush()

        yield write
