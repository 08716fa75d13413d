"""Progress of a command, on standard error."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial


@contextlib.contextmanager
def shown_steps() -> Iterator[Callable[[str, float | None], None]]:
    """A progress bar whose task changes, driven by its name and the share of it that is done, if that is known.

    Where there is no terminal each task is a plain line.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        told: list[str] = []

        def tell(task: str, share: float | None) -> None:
            if not told or told[-1] != task:
                told.append(task)
                console.print(task)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        number = progress.add_task("", total=None, visible=False)

        def show(task: str, share: float | None) -> None:
            total = None if share is None else 1.0
            progress.update(number, description=task, total=total, completed=share or 0, visible=True)

        yield show


@contextlib.contextmanager
def shown_progress(task: str) -> Iterator[Callable[[float], None]]:
    """The same for one task, which is compiled before any of it is done. It is driven by the share that is done."""
    with shown_steps() as show:
        show(f"compiling and running: {task}", None)
        yield partial(show, f"running: {task}")
