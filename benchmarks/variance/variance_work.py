"""The gradients that every library is asked for, and what a peer is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vae_jax.problems import PoissonGamma
from vae_jax.replicates import replicate_mesh
from vae_jax.statistics import GradientStatistics, mean_se

SEED = 0

CHUNK_SIZES = {"cpu": (5, 1, 25, 100)}
OTHER_CHUNK_SIZES = (250, 25, 1_000)

LEAST_LATENT = 1e-3
"""Draws of a plain normal are cut off here: it has mass below zero, where the model has no density."""

AGREEMENT = 5.0
"""Standard errors within which a peer's mean gradient must lie of ours."""

COMPARED = ("elbo", "loc_u", "scale_u")
"""The pathwise gradients of v have infinite variance, so that no standard error holds for them."""

Replicates = Mapping[str, Any]
"""The evidence lower bound ("elbo") and its gradient by parameter, one number a replicate [R]."""


@dataclass(frozen=True)
class GradientWork:
    """Gradients of `num_replicates` independent bounds of `num_samples` samples each."""

    problem: PoissonGamma
    params: Mapping[str, jax.Array]
    key: jax.Array
    num_samples: int
    num_replicates: int
    mesh: Mesh
    chunk_sizes: tuple[int, ...]
    """Numbers of replicates at once: every peer that has the choice is given the fastest."""


def default_work(num_samples: int, num_replicates: int, most_chunk_sizes: int | None = None) -> GradientWork:
    """Returns the published Poisson-Gamma problem on every device."""
    problem = PoissonGamma()
    chunk_sizes = CHUNK_SIZES.get(jax.default_backend(), OTHER_CHUNK_SIZES)[:most_chunk_sizes]
    params = {name: jnp.asarray(value) for name, value in problem.default_params.items()}
    return GradientWork(
        problem, params, jax.random.key(SEED), num_samples, num_replicates, replicate_mesh(), chunk_sizes
    )


@dataclass(frozen=True)
class Peer:
    """Another library on this work, or on a slice of it."""

    name: str
    counterpart: str
    """Our contender on the same log joint by the same kind of gradient."""
    run: Callable[[], Replicates]
    num_samples: int
    num_replicates: int
    setting: Mapping[str, Any]

    @property
    def estimator(self) -> str:
        """Our estimator of the same kind, whatever the family and log joint."""
        return self.counterpart.rpartition("/")[2]

    def share(self, work: GradientWork) -> float:
        """The fraction of the work that one run does."""
        return self.num_samples * self.num_replicates / (work.num_samples * work.num_replicates)


@dataclass(frozen=True)
class MissingPeer:
    """A library that is not installed, or cannot be imported with this JAX."""

    name: str
    reason: str


def z_scores(replicates: Replicates, ours: GradientStatistics) -> dict[str, float | None]:
    """(peer's mean - our mean) / standard error of the difference, of the bound and of the compared parameters.

    None where a replicate of the peer is not finite.
    """
    means = {"elbo": ours.value.mean, **ours.gradient.mean}
    mean_ses = {"elbo": ours.value.mean_se, **ours.gradient.mean_se}
    scores = {}
    for name in COMPARED:
        theirs = np.asarray(replicates[name], float)
        squared_se = mean_se(theirs) ** 2 + float(mean_ses[name]) ** 2
        score = float((theirs.mean() - float(means[name])) / np.sqrt(squared_se))
        scores[name] = score if np.isfinite(score) else None
    return scores
