"""Watching a training run, on standard error."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from vae_jax.vae.runs.training_metrics import Report


@contextlib.contextmanager
def shown_training(num_epochs: int, done: int) -> Iterator[Callable[["Report"], None]]:
    """A line for each epoch, driven by the run's reports; on a terminal, the present terms and a bar below.

    Args:
        num_epochs: of the whole run.
        done: epochs that were done before.
    """
    console = Console(stderr=True, highlight=False)
    console.print(HEADER)
    if not console.is_terminal:
        yield lambda report: _print_row(console, report)
        return
    bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=40), TimeRemainingColumn(), console=console)
    task = bar.add_task(f"epoch {done + 1:,} of {num_epochs:,}", total=num_epochs, completed=done)
    terms = Text("compiling", no_wrap=True, overflow="ellipsis")
    active_units: float | None = None
    with Live(Group(terms, bar), console=console, transient=True):

        def show(report: "Report") -> None:
            nonlocal active_units
            _print_row(console, report)
            if report.row is not None:
                active_units = _mean(report.row["active_units"])
            terms.plain = present_terms(report, active_units)
            description = f"epoch {report.epoch:,} of {num_epochs:,}"
            bar.update(task, description=description, completed=report.epoch - 1 + report.share)

        yield show


def present_terms(report: "Report", active_units: float | None) -> str:
    """The terms of the bound in the epoch so far, the active units and the speed, as far as they are known.

    Args:
        report: of the run.
        active_units: at the end of the last epoch, averaged over the seeds.
    """
    parts = [f"ELBO {_nats(report.elbo)}", f"reconstruction {_nats(report.reconstruction)}", f"KL {_nats(report.kl)}"]
    if active_units is not None:
        parts.append(f"{active_units:.0f} active")
    if report.images_per_second:
        parts.append(f"{report.images_per_second:,.0f} images/s")
    return "  ".join(parts)


def _nats(value: float) -> str:
    """A number in at most seven letters where it is above -100,000, so that 80 columns hold all the terms."""
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


HEADER = " epoch     train ELBO  reconstruction      KL  validation ELBO  active  images/s"


def _print_row(console: Console, report: "Report") -> None:
    if report.row is None:
        return
    row = {name: _mean(value) for name, value in report.row.items()}
    validation = "-" if row["validation_elbo"] is None else f"{row['validation_elbo']:.2f}"
    error = "" if row["validation_elbo_se"] is None else f" ± {row['validation_elbo_se']:.2f}"
    speed = f"{row['images_per_second']:,.0f}" if row["images_per_second"] else "-"
    console.print(
        f"{report.epoch:6,}  {row['train_elbo']:13.2f}  {row['train_reconstruction']:14.2f}  {row['train_kl']:6.2f}"
        f"  {validation + error:>15}  {row['active_units']:6.0f}  {speed:>8}"
    )


def _mean(value: Any) -> Any:
    """The mean over the seeds, where there are several."""
    return sum(value) / len(value) if isinstance(value, list) else value
