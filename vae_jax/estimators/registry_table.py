"""Words and the table that the registries of estimators and of bounds share."""

from collections.abc import Iterable, Sequence

REPARAMETERIZABLE = "reparameterizable"
WITH_DENSITY = "any with a density"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)) + "\n"
