"""The work that every library is given, and how one pass over it is timed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vae_jax.problems import PoissonGamma
from vae_jax.statistics import GradientStatistics
from vae_jax.typing import LogDensity

AGREEMENT = 5.0
"""Standard errors within which a peer's mean gradient must lie of ours."""

COMPARED = ("elbo", "loc_u", "scale_u")
"""The pathwise gradients of v have infinite variance, so that no standard error holds for them."""

Replicates = Mapping[str, Any]
"""The evidence lower bound ("elbo") and its gradient by parameter, one number a replicate [R]."""


@dataclass(frozen=True)
class Work:
    """Gradients of `num_replicates` independent bounds of `num_samples` samples each."""

    problem: PoissonGamma
    written_log_joint: LogDensity
    params: Mapping[str, jax.Array]
    key: jax.Array
    num_samples: int
    num_replicates: int
    mesh: Mesh
    chunk_sizes: tuple[int, ...]
    """Replicates at once, of which every peer that has the choice is given the fastest."""


@dataclass(frozen=True)
class Peer:
    """Another library on that work, or on a slice of it."""

    name: str
    counterpart: str
    """Our contender on the same log joint by the same kind of gradient."""
    run: Callable[[], Replicates]
    num_samples: int
    num_replicates: int
    setting: Mapping[str, Any]

    def share(self, work: Work) -> float:
        """How much of the work one run does."""
        return self.num_samples * self.num_replicates / (work.num_samples * work.num_replicates)


@dataclass(frozen=True)
class MissingPeer:
    """A library that is not installed, or does not import beside this JAX."""

    name: str
    reason: str


def seconds_of(run: Callable[[], Any]) -> float:
    """The time of one run, its result awaited."""
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def interleaved(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Each contender's times, every round running all of them once, after a round that is not counted."""
    for run in contenders.values():
        jax.block_until_ready(run())
    times = [{name: seconds_of(run) for name, run in contenders.items()} for _ in range(rounds)]
    return {name: [each[name] for each in times] for name in contenders}


def fastest(candidates: Mapping[Any, Callable[[], Any]], rounds: int = 3) -> tuple[Any, dict[Any, float]]:
    """The candidate with the smallest time, and the time of each."""
    times = {name: min(each) for name, each in interleaved(candidates, rounds).items()}
    return min(times, key=times.__getitem__), times


def z_scores(replicates: Replicates, ours: GradientStatistics) -> dict[str, float]:
    """(peer's mean - our mean) / standard error of the difference, of the bound and of the compared parameters."""
    means = {"elbo": ours.value.mean, **ours.gradient.mean}
    mean_ses = {"elbo": ours.value.mean_se, **ours.gradient.mean_se}
    scores = {}
    for name in COMPARED:
        theirs = np.asarray(replicates[name], float)
        squared_se = theirs.var(ddof=1) / theirs.size + float(mean_ses[name]) ** 2
        scores[name] = float((theirs.mean() - float(means[name])) / np.sqrt(squared_se))
    return scores
