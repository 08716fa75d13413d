"""Tables and lines for a terminal of 80 columns, the same in every command."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

WIDTH = 80

OVERDISPERSED = 1.5
"""The variance of counts over their mean above which tables remark that a Poisson is too narrow."""


def plain_table(title: str | None = None, *, gap: int = 1) -> Table:
    """A table without rules, whose columns are `gap` blanks apart."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, gap, 0, 0), pad_edge=False
    )


def add_words(table: Table, *headers: str) -> None:
    """Adds columns of words, which begin below each other."""
    for header in headers:
        table.add_column(header, no_wrap=True)


def add_numbers(table: Table, *headers: str) -> None:
    """Adds columns of numbers, which end below each other."""
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)


def print_saved(console: Console, out: Path, *names: str) -> None:
    """Prints which files a command wrote."""
    console.print(f"Saved in {out}: {', '.join(names)}", highlight=False, markup=False)
