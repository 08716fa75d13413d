"""Contenders timed in turn, round after round, and summaries of their times."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax


def seconds_of(run: Callable[[], Any]) -> float:
    """The time of one run, until its result is there."""
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def interleaved(contenders: Mapping[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Each contender's times, every round running all of them once, after a round that is not counted."""
    for run in contenders.values():
        jax.block_until_ready(run())
    times = [{name: seconds_of(run) for name, run in contenders.items()} for _ in range(rounds)]
    return {name: [each[name] for each in times] for name in contenders}


def fastest(candidates: Mapping[Any, Callable[[], Any]], rounds: int = 3) -> tuple[Any, dict[Any, float]]:
    """The candidate with the smallest time, and the time of each."""
    times = {name: min(each) for name, each in interleaved(candidates, rounds).items()}
    return min(times, key=times.__getitem__), times


def summary(values: Sequence[float]) -> dict[str, float]:
    """The median and the extremes."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Summary of the ratio within a round, which the machine's slow changes leave alone."""
    return summary([above / below for above, below in zip(numerators, denominators, strict=True)])
