"""Telling the user how far a command is, on standard error."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown_progress(task: str) -> Iterator[Callable[[float], None]]:
    """A progress bar for one task, driven by the function that it gives; plain lines where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(f"compiling and running: {task}")
        yield lambda share: console.print(f"{share:.0%} done")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        number = progress.add_task(f"compiling: {task}", total=None)
        yield lambda share: progress.update(number, description=f"running: {task}", total=1.0, completed=share)
