"""What the command lines of benchmarks share: help, --quick, --out."""

import argparse
from pathlib import Path

DEFAULT_OUT = Path(__file__).parent / "results"


def described_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def saving_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """The parser of a script that saves what it measures, by default among the results."""
    parser = described_parser(description)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    return parser


def add_quick_and_out(parser: argparse.ArgumentParser, quick: str = "small sizes") -> None:
    """The options of a script whose quick runs are saved only where `--out` says so."""
    parser.add_argument("--quick", action="store_true", help=f"{quick}; saves nothing unless --out is given")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")


def out_folder(options: argparse.Namespace) -> Path | None:
    """Where the options of `add_quick_and_out` have results saved, if anywhere."""
    return options.out or (None if options.quick else DEFAULT_OUT)
