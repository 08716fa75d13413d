"""Results of one script's sections on an accelerator: guarded, printed and saved one by one within a time limit."""

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.benchmark_options import described_parser
from vae_jax.files import write_json


def accelerator_parser(description: str | None, *, scale_on_cpus: float) -> argparse.ArgumentParser:
    """Returns a parser whose defaults are the environment's, with small sizes where no accelerator is present."""
    parser = described_parser(description)
    folder = Path(os.environ.get("OUT") or tempfile.gettempdir())
    scale = float(os.environ.get("SCALE") or (scale_on_cpus if jax.default_backend() == "cpu" else 1))
    limit = float(os.environ.get("LIMIT") or 150)
    parser.add_argument("--out", type=Path, default=folder, help="folder of the results ($OUT, or a temporary one)")
    parser.add_argument(
        "--limit", type=float, default=limit, help="seconds after which no section starts ($LIMIT, 150)"
    )
    parser.add_argument(
        "--scale", type=float, default=scale, help=f"share of the sizes ($SCALE; 1, or {scale_on_cpus:g} on CPUs)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="measure what has this text in its name (all)")
    return parser


class SectionReport:
    """The results that a script has so far, and the sections that it may still measure.

    Args:
        name: of the results' file.
        options: out, limit and only.
        facts: more about the run.
    """

    def __init__(self, name: str, options: argparse.Namespace, **facts: str) -> None:
        self.path, self.only = options.out / f"{name}.json", options.only
        self.deadline = time.time() + options.limit
        self.results: dict[str, Any] = {"jax": jax.__version__, "device": str(jax.devices()[0].device_kind), **facts}
        print(self.results, flush=True)

    @property
    def is_out_of_time(self) -> bool:
        """Whether no further section may start."""
        return time.time() > self.deadline

    def keep(self, name: str, result: Any) -> None:
        """Saves a result with those before it."""
        self.results[name] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.results)

    def section(self, name: str, measure: Callable[[], Any]) -> None:
        """Measures, prints and saves one section, unless it is left out or the time is over."""
        if self.only not in name:
            return
        if self.is_out_of_time:
            self.results[name] = "out of time"
            print(name, "out of time", flush=True)
            return
        started = time.time()
        self.keep(name, guarded(measure))
        print(f"[{time.time() - started:.1f} s] {name}: {self.results[name]}", flush=True)


def guarded(measure: Callable[[], Any]) -> Any:
    """The result, or one line about its failure, whose traceback is printed."""
    try:
        return measure()
    # Whatever stops one section is an entry of the results, and not the end of the others.
    except Exception as error:
        traceback.print_exc(limit=3)
        return f"FAILED {type(error).__name__}: {str(error)[:300]}"
