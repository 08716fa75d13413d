"""Speed and memory of coordinate ascent on the Gaussian-Poisson mixture, compared with a loop fused by hand."""

import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.inference.fused_mixture_pass import fused_passes
from benchmarks.interleaved_timing import interleaved, ratios
from benchmarks.process_memory import peak_resident, restart_peak
from vae_jax.inference import cavi
from vae_jax.replicates import replicate_mesh

NUM_COMPONENTS, NUM_DIMENSIONS = 10, 2

RESTARTED_EVENTS, NUM_RESTARTS, RESTARTED_COMPONENTS = 1_000, 100, 8


def simulated_events(num_events: int) -> cavi.LocatedCounts:
    """Overlapping clusters, so that no responsibility is 0 or 1 throughout."""
    generator = np.random.default_rng(0)
    loc = 3 * generator.normal(size=(NUM_COMPONENTS, NUM_DIMENSIONS))
    rate = generator.gamma(3, 10, NUM_COMPONENTS)
    labels = generator.integers(0, NUM_COMPONENTS, num_events)
    positions = loc[labels] + generator.normal(size=(num_events, NUM_DIMENSIONS))
    return cavi.located_counts(positions, generator.poisson(rate[labels]))


def sweeps(num_events: int, num_sweeps: int, rounds: int) -> dict[str, Any]:
    """Times runs on one device and sharded, as multiples of the fused passes on one core and on all."""
    data = simulated_events(num_events)
    model = cavi.gaussian_poisson_mixture(data, NUM_COMPONENTS)
    mesh = replicate_mesh()
    ascend = partial(_ascend, model, data)
    # Rounding may end the ascent before.
    num_sweeps = min(ascend(num_sweeps), ascend(num_sweeps, mesh))
    candidates: dict[str, Callable[[], Any]] = {
        "one_device": partial(ascend, num_sweeps),
        "one_device_init": partial(ascend, 1),
        "sharded": partial(ascend, num_sweeps, mesh),
        "sharded_init": partial(ascend, 1, mesh),
    }
    with tempfile.TemporaryDirectory() as folder:
        passes = fused_passes(model, data, Path(folder))
        if passes is not None:
            candidates["floor_one_core"] = partial(passes, num_sweeps, 1)
            candidates["floor_all_cores"] = partial(passes, num_sweeps, os.cpu_count() or 1)
        seconds = interleaved(candidates, rounds)
    return {
        "events": num_events,
        "sweeps": num_sweeps,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "temporary_bytes_an_event": _bytes_an_event(num_events, ascend),
        **_over_floors(seconds, num_sweeps),
    }


def _ascend(
    model: cavi.GaussianPoissonMixture, data: cavi.LocatedCounts, num_sweeps: int, mesh: Mesh | None = None
) -> int:
    ascent = cavi.ascend(model, data, jax.random.key(0), max_steps=num_sweeps, tolerance=0, mesh=mesh)
    return int(ascent.num_steps)


def _over_floors(seconds: dict[str, list[float]], num_sweeps: int) -> dict[str, Any]:
    """Ratios of the whole run, and of the sweeps alone, to the floor on as many cores."""
    over = {}
    for ours, floor in (("one_device", "floor_one_core"), ("sharded", "floor_all_cores")):
        if floor in seconds:
            # The first sweep goes with the start.
            rest = [a - b for a, b in zip(seconds[ours], seconds[f"{ours}_init"], strict=True)]
            passes = [floor_seconds * (num_sweeps - 1) / num_sweeps for floor_seconds in seconds[floor]]
            over[f"sweeps_{ours}_over_{floor}"] = ratios(rest, passes)
            over[f"run_{ours}_over_{floor}"] = ratios(seconds[ours], seconds[floor])
    return over


def _bytes_an_event(num_events: int, ascend: Callable[[int], Any]) -> float:
    """Memory that a run takes above its data and its program."""
    before = restart_peak()
    ascend(2)
    return (peak_resident() - before) / num_events


def restarts(rounds: int) -> dict[str, Any]:
    """Times many restarts on few events in one call."""
    data = simulated_events(RESTARTED_EVENTS)
    model = cavi.gaussian_poisson_mixture(data, RESTARTED_COMPONENTS)

    def restart() -> Any:
        return cavi.ascend(model, data, jax.random.key(0), num_restarts=NUM_RESTARTS)

    (seconds,) = interleaved({"one_device": restart}, rounds).values()
    return {"events": RESTARTED_EVENTS, "restarts": NUM_RESTARTS, "seconds": statistics.median(seconds)}
