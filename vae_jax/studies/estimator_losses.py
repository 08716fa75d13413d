"""A problem's expectation as a stochastic loss under an estimator of the registry, and what an estimate costs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vae_jax.estimators import ESTIMATORS, Work, in_blocks
from vae_jax.problems import Problem

BLOCK_SIZE = 10_000
"""Samples of a block where there are too many for a cache."""


def loss_under(problem: Problem, estimator: str, num_samples: int) -> Callable[..., Any]:
    """A problem's loss under an estimator: a function of parameters and a key, whose gradient is the estimator's.

    Multiples of 10,000 samples above 100,000 are averaged in blocks.
    """
    blocked = num_samples > 10 * BLOCK_SIZE and num_samples % BLOCK_SIZE == 0
    chosen = in_blocks(ESTIMATORS[estimator], BLOCK_SIZE) if blocked else ESTIMATORS[estimator]
    return partial(problem.estimate, num_samples=num_samples, estimator=chosen)


def as_arrays(params: Mapping[str, Any]) -> dict[str, Array]:
    """Parameters as floating-point arrays of the precision that JAX works in."""
    return {name: jnp.asarray(value, jnp.result_type(float)) for name, value in params.items()}


def work_of(problem: Problem, params: Mapping[str, Any], num_samples: int) -> Work:
    """Returns the sizes that the cost of one estimate of a problem's gradient depends on.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.BernoulliVectorCost(weights=(1.0, 2.0, 3.0))
        >>> work = vj.studies.work_of(problem, problem.default_params, num_samples=10)
        >>> work.samples, work.parameters, work.outcomes
        (10, 3, 8)
        >>> vj.estimators.REGISTRY["rebar"].evaluations.number(work)  # two for each sample
        20
    """
    num_parameters = sum(np.size(value) for value in params.values())
    return Work.of(problem.q(as_arrays(params)), num_samples, num_parameters)
