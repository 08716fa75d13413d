"""The peak memory of an estimator with a latent vector of 1,000 entries, in a process of its own."""

import argparse
import json
import subprocess
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from benchmarks.child_process import child_environment, module_command
from benchmarks.process_memory import peak_resident, restart_peak
from benchmarks.variance.estimator_cases import Case, estimator_cases
from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import BernoulliCost, SquareCost
from vae_jax.replicates import replicate_mesh
from vae_jax.runtime import start_jax
from vae_jax.statistics import gradient_statistics

LARGE_LATENTS = LARGE_SAMPLES = LARGE_REPLICATES = 1_000

REPLICATES_OF_SLOW = 2
"""Replicates of measure-valued derivatives, which evaluate the objective a thousand times a sample. Memory does not
grow with the number of replicates."""


def large_peak_bytes(case: Case) -> int | str:
    """The peak above the imports, or the last line of an error."""
    command = module_command("benchmarks.variance.large_latent_memory", case.problem.name, case.estimator)
    child = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=300)
    return json.loads(child.stdout) if child.returncode == 0 else child.stderr.strip().splitlines()[-1]


def _print_peak(problem: str, estimator: str) -> None:
    start_jax("float32")
    case = next(case for case in estimator_cases() if (case.problem.name, case.estimator) == (problem, estimator))
    jnp.zeros(1).block_until_ready()
    loss, params = _large_loss(case)
    before = restart_peak()
    number = REPLICATES_OF_SLOW if "measure" in estimator else LARGE_REPLICATES
    jax.block_until_ready(
        gradient_statistics(loss, params, jax.random.key(0), number, tail_size=0, mesh=replicate_mesh())
    )
    print(json.dumps(peak_resident() - before))


def _large_loss(case: Case) -> tuple[Callable[..., Array], dict[str, Array]]:
    """The sum of squares of 1,000 latents of the case's kind, divided by their number."""
    estimator = ESTIMATORS[case.estimator]

    def objective(sample: Array, q: Any) -> Array:
        return (sample.astype(float) ** 2).sum() / LARGE_LATENTS

    def loss(params: dict[str, Array], key: Array) -> Array:
        if isinstance(case.problem, SquareCost):
            entries: Any = dist.Normal(params["loc"], params["scale"])
        elif isinstance(case.problem, BernoulliCost):
            entries = dist.Bernoulli(logits=params["logits"])
        else:
            entries = dist.Categorical(logits=params["logits"])
        return estimator(objective, entries.to_event(1), key, LARGE_SAMPLES)

    ones = jnp.ones(LARGE_LATENTS)
    if isinstance(case.problem, SquareCost):
        return loss, {"loc": ones, "scale": ones}
    if isinstance(case.problem, BernoulliCost):
        return loss, {"logits": 0.1 * ones}
    return loss, {"logits": 0.1 * jnp.ones((LARGE_LATENTS, 4))}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("estimator")
    return parser.parse_args()


if __name__ == "__main__":
    _print_peak(**vars(_parse()))
