"""Contenders in turn, round after round, and what their times come to."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.worker import Failed, Worker


@dataclass(frozen=True)
class Entry:
    """One task of one worker, and what it answers round by round."""

    family: str
    task: str
    arguments: Mapping[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    """The first is of the warm-up, compilation included, and counts nowhere else."""
    failures: list[str] = field(default_factory=list)
    """At most one, after which it is not asked again."""

    @property
    def status(self) -> str:
        """Measured, or why not."""
        return f"failed: {self.failures[0]}" if self.failures else "measured"

    @property
    def seconds(self) -> list[float]:
        """Of each round."""
        return [answer["seconds"] for answer in self.answers[1:]]

    def rates(self, counted: str) -> list[float]:
        """What was done in a second, of each round."""
        return [answer[counted] / answer["seconds"] for answer in self.answers[1:]]


def run_rounds(workers: Mapping[str, Worker], entries: Sequence[Entry], rounds: int) -> None:
    """A warm-up and then the rounds. In each, every entry works once, while all others wait."""
    for number in range(rounds + 1):
        for entry in entries:
            if entry.failures:
                continue
            try:
                entry.answers.append(workers[entry.family].ask(entry.task, **entry.arguments))
            except Failed as failure:
                entry.failures.append(str(failure))
        print("." if number else "warmed up ", end="\n" if number == rounds else "", flush=True)


def summary(values: Sequence[float]) -> dict[str, float]:
    """The median and the extremes."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """The same of the ratio within a round, which the machine's slow changes leave alone."""
    return summary([above / below for above, below in zip(numerators, denominators, strict=True)])


def mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    """The mean and its standard error; None of a single value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "se": error}
