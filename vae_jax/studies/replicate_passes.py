"""One compiled pass over the replicates of an estimator at every number of samples of a study, timed."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from vae_jax.problems import Problem
from vae_jax.replicates import stack_replicates
from vae_jax.runtime import wide_vectors
from vae_jax.studies.estimator_losses import as_arrays, loss_under
from vae_jax.studies.study_plan import StudyPlan
from vae_jax.typing import PRNGKey

ROUND_ELEMENTS = 2**27
"""Draws of one latent between two reports of progress, at most."""

LEAST_ROUNDS = 10


def timed_replicates(
    plan: StudyPlan, estimator: str, key: PRNGKey, mesh: Mesh | None, on_progress: Callable[[float], None]
) -> tuple[Float[np.ndarray, "R N P"], float]:
    """The replicates of one estimator, and the seconds that they took, compilation aside."""
    params = as_arrays(plan.params)
    num_replicates = plan.num_replicates
    least_rounds = max(LEAST_ROUNDS, math.ceil(num_replicates * max(plan.num_samples) / ROUND_ELEMENTS))
    round_size = math.ceil(num_replicates / least_rounds)
    rounds = math.ceil(num_replicates / round_size)
    program = jax.jit(
        partial(_round, plan.problem, estimator, plan.num_samples, round_size, mesh, tuple(params)),
        compiler_options=wide_vectors(),
    )
    compiled = program.lower(params, key, 0).compile()
    parts, durations = [], []
    for number in range(rounds):
        started = time.perf_counter()
        parts.append(np.asarray(compiled(params, key, number * round_size)))
        durations.append(time.perf_counter() - started)
        on_progress((number + 1) / rounds)
    # The median of the rounds is not moved by what else the machine did.
    seconds = statistics.median(durations) * num_replicates / round_size
    return np.concatenate(parts)[:num_replicates], seconds


def _round(
    problem: Problem,
    estimator: str,
    num_samples: Sequence[int],
    num_replicates: int,
    mesh: Mesh | None,
    names: Sequence[str],
    params: Mapping[str, Array],
    key: PRNGKey,
    first: int | Int[Array, ""],
) -> Float[Array, "r N P"]:
    """Values and gradients, in the order of `names`, of `num_replicates` replicates from number `first` on."""

    def cell(key: PRNGKey, size: int) -> Float[Array, " P"]:
        value, gradient = jax.value_and_grad(loss_under(problem, estimator, size))(params, key)
        return jnp.concatenate([value[None], *(gradient[name].reshape(-1) for name in names)])

    def draw(key: PRNGKey) -> Float[Array, "N P"]:
        return jnp.stack([cell(key, size) for size in num_samples])

    return stack_replicates(draw, key, num_replicates, first=first, mesh=mesh)
