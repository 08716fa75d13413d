"""Tables of at most 80 columns, and the numbers in them."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.saved_results import Record


def print_tables(tables: Iterable[Table]) -> None:
    """Prints the tables that have rows."""
    console = Console(width=80)
    for table in tables:
        if table.rows:
            console.print(table)


def framed_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with lines, whose first column is aligned left and whose others right."""
    return _filled(Table(title=title, title_justify="left"), columns, rows)


def open_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """The same without lines, for long rows."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    return _filled(table, columns, rows)


def _filled(table: Table, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=table.box is None)
    for row in rows:
        table.add_row(*row)
    return table


def targets_table(targets: Iterable[Record]) -> Table:
    """Every target, its limit, the worst value and whether it is met."""
    met = {True: "yes", False: "NO", None: "-"}
    rows = [[row["target"], _number(row["limit"]), _number(row["worst"]), met[row["met"]]] for row in targets]
    return framed_table("Targets", ("target", "limit", "worst", "met"), rows)


def megabytes(number: int | None) -> str:
    """Bytes in units of 10^6."""
    return "-" if number is None else f"{number / 1e6:.0f}"


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:,.4g}"


def shown_range(values: Record, form: str = ".2f") -> str:
    """The extremes of a summary."""
    return f"{values['min']:{form}}-{values['max']:{form}}"
