"""Tasks of several workers, asked in turn round after round, and the rates of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.training.task_worker import TaskFailed, Worker
from vae_jax.statistics import mean_se


@dataclass(frozen=True)
class Entry:
    """One task of one worker, and its answers round by round."""

    family: str
    task: str
    arguments: Mapping[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)
    """The first answer is the warm-up's, compilation included: no rate counts it."""
    failures: list[str] = field(default_factory=list)
    """One failure at most, after which the task is not asked again."""

    @property
    def status(self) -> str:
        """Measured, or the failure."""
        return f"failed: {self.failures[0]}" if self.failures else "measured"

    @property
    def seconds(self) -> list[float]:
        """The time of each round."""
        return [answer["seconds"] for answer in self.answers[1:]]

    def rates(self, counted: str) -> list[float]:
        """The number of images, products or operations a second in each round."""
        return [answer[counted] / answer["seconds"] for answer in self.answers[1:]]


def run_rounds(workers: Mapping[str, Worker], entries: Sequence[Entry], rounds: int) -> None:
    """Asks every entry once in a warm-up and once in each round, while all others wait."""
    for number in range(rounds + 1):
        for entry in entries:
            if entry.failures:
                continue
            try:
                entry.answers.append(workers[entry.family].ask(entry.task, **entry.arguments))
            except TaskFailed as failure:
                entry.failures.append(str(failure))
        print("." if number else "warmed up ", end="\n" if number == rounds else "", flush=True)


def mean_and_error(values: Sequence[float]) -> dict[str, float | None]:
    """The mean and its standard error, which a single value does not have."""
    error = float(mean_se(np.asarray(values))) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "se": error}
