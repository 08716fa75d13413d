"""Every estimator on every built-in problem that admits it, on the accelerator: |measured - exact| in standard errors.

    python -m benchmarks.accelerator.exactness

Fails (exit code 1) if a mean gradient lies more than 5.5 standard errors from the exact one.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.section_report import accelerator_parser
from vae_jax import problems
from vae_jax.estimators import ESTIMATORS, REGISTRY
from vae_jax.problems import Problem
from vae_jax.statistics import GradientStatistics, gradient_statistics
from vae_jax.studies import admitted, parameter_names

NUM_SAMPLES, NUM_REPLICATES = 4, 40_000

LIMIT = 5.5
"""Standard errors."""

LEAST_SE = 1e-6
"""Below this a standard error is only the rounding of float32."""

COMPARED: tuple[Any, ...] = (
    problems.PoissonGamma(),
    problems.PoissonGamma(family="log_normal"),
    problems.SquareCost(0.3),
    problems.CosineCost(1.5),
    problems.GammaMoment(),
    problems.BernoulliCost(),
    problems.CategoricalCost(),
)


class Deviation(NamedTuple):
    """One parameter's mean gradient and its distance from the exact one, in standard errors."""

    name: str
    mean: float
    exact: float
    z: float


def main(options: argparse.Namespace) -> int:
    """Compares every cell and prints the worst. Returns 1 if one is off."""
    print(jax.__version__, jax.devices(), flush=True)
    started, deviations = time.time(), []
    for problem, estimator in _cases(options.only):
        if time.time() - started > options.limit:
            print("out of time: the rest was not run", flush=True)
            break
        found = list(_deviations(problem, estimator, max(1_000, round(NUM_REPLICATES * options.scale))))
        for cell in found:
            if not cell.z < LIMIT:
                print(f"OFF: {cell.name}: {cell.mean} against {cell.exact}, z = {cell.z:.1f}", flush=True)
        deviations += found
    worst = max(deviations, key=lambda cell: cell.z, default=Deviation("", 0.0, 0.0, 0.0))
    print(f"{len(deviations)} cells, worst z {worst.z:.2f} ({worst.name}), {time.time() - started:.0f} s")
    return 0 if all(cell.z < LIMIT for cell in deviations) else 1


def _cases(only: str) -> Iterator[tuple[Problem, str]]:
    """The problems with the estimators that they admit, where the text is in their names."""
    for problem in COMPARED:
        for name in admitted(problem, problem.default_params):
            if only in f"{problem.name} {name}":
                yield problem, name


def _deviations(problem: Problem, estimator: str, num_replicates: int) -> Iterator[Deviation]:
    """The parameters whose exact mean is finite and whose estimate is unbiased and varies."""
    params = {name: jnp.asarray(value, float) for name, value in problem.default_params.items()}
    loss = partial(problem.estimate, num_samples=NUM_SAMPLES, estimator=ESTIMATORS[estimator])
    measured = gradient_statistics(loss, params, jax.random.key(7), num_replicates, tail_size=0)
    means, mean_ses = (_flat(measured, field, params) for field in ("mean", "mean_se"))
    exact = problem.exact(problem.default_params, estimator)(NUM_SAMPLES)
    names = parameter_names(problem, problem.default_params)
    for parameter, mean, mean_se in zip(names, means, mean_ses, strict=True):
        moment = exact[parameter].mean
        if (
            moment.value is not None
            and moment.status == "finite"
            and REGISTRY[estimator].unbiased
            and mean_se >= LEAST_SE
        ):
            z = float(abs(mean - moment.value) / mean_se)
            yield Deviation(f"{problem.name} {estimator} {parameter}", float(mean), moment.value, z)


def _flat(measured: GradientStatistics, field: str, params: Mapping[str, Any]) -> np.ndarray:
    """One statistic of the value and of every parameter's gradient, in the order of their names."""
    gradient = getattr(measured.gradient, field)
    return np.concatenate([np.ravel(getattr(measured.value, field)), *(np.ravel(gradient[name]) for name in params)])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return accelerator_parser(__doc__, scale_on_cpus=0.1)


if __name__ == "__main__":
    sys.exit(main(parser().parse_args()))
