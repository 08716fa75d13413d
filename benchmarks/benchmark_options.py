"""The options that every benchmark has, --quick and --out, and help that fits the terminal."""

import argparse
import re
import textwrap
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


class _ParagraphFormatter(argparse.HelpFormatter):
    """Fills the paragraphs and the list items of a description, and keeps its indented lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_filled(block, width) for block in text.strip().split("\n\n"))


def _filled(block: str, width: int) -> str:
    if block.startswith("    "):
        return block
    items = re.split(r"\n(?=- )", block)
    return "\n".join(
        textwrap.fill(" ".join(item.split()), width, subsequent_indent="  " if item.startswith("- ") else "")
        for item in items
    )


def described_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help keeps the description's paragraphs."""
    return argparse.ArgumentParser(description=description, formatter_class=_ParagraphFormatter)


def benchmark_parser(description: str | None, quick: str = "small sizes") -> argparse.ArgumentParser:
    """Returns a parser with --quick and --out; quick runs are saved only where --out says so."""
    parser = described_parser(description)
    parser.add_argument("--quick", action="store_true", help=f"{quick}; saves nothing unless --out is given")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")
    return parser


def out_folder(options: argparse.Namespace) -> Path | None:
    """The folder that the results are saved in, if any."""
    return options.out or (None if options.quick else RESULTS)
