"""Watching a training run, on standard error."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vae_jax.vae.runs import Report


@contextlib.contextmanager
def shown_training(num_epochs: int, done: int) -> Iterator[Callable[["Report"], None]]:
    """A progress bar over a line for each epoch, driven by the run's reports; the lines alone without a terminal.

    Args:
        num_epochs: of the whole run.
        done: epochs that were done before.
    """
    console = Console(stderr=True, highlight=False)
    console.print(HEADER)
    if not console.is_terminal:
        yield lambda report: _print_row(console, report)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("compiling", total=num_epochs, completed=done)

        def show(report: "Report") -> None:
            _print_row(console, report)
            description = f"epoch {report.epoch:,} ELBO {report.elbo:.2f} {report.images_per_second:,.0f} images/s"
            progress.update(task, description=description, completed=report.epoch - 1 + report.share)

        yield show


HEADER = " epoch     train ELBO  reconstruction      KL  validation ELBO  active  images/s"


def _print_row(console: Console, report: "Report") -> None:
    if report.row is None:
        return
    row = {name: _mean(value) for name, value in report.row.items()}
    validation = "-" if row["validation_elbo"] is None else f"{row['validation_elbo']:.2f}"
    error = "" if row["validation_elbo_se"] is None else f" ± {row['validation_elbo_se']:.2f}"
    console.print(
        f"{report.epoch:6,}  {row['train_elbo']:13.2f}  {row['train_reconstruction']:14.2f}  {row['train_kl']:6.2f}"
        f"  {validation + error:>15}  {row['active_units']:6.0f}  {row['images_per_second']:8,.0f}"
    )


def _mean(value: Any) -> Any:
    """Over the seeds, where there are several."""
    return sum(value) / len(value) if isinstance(value, list) else value
