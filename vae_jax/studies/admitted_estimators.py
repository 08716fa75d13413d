"""The estimators that a problem's gradient can be estimated by, found by tracing each of them."""

from collections.abc import Mapping
from typing import Any

import jax

from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import Problem
from vae_jax.studies.estimator_losses import as_arrays, loss_under

PROBE_SAMPLES = 4
"""Enough for every estimator, and even for those that take pairs."""


def admitted(problem: Problem, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Lists the names of the estimators that accept a problem, in the order of the registry.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.BernoulliCost()
        >>> names = vj.studies.admitted(problem, problem.default_params)
        >>> "disarm" in names, "pathwise" in names  # Bernoulli latents are not reparameterizable
        (True, False)
    """
    return tuple(name for name in ESTIMATORS if refusal(problem, params, name, PROBE_SAMPLES) is None)


def refusal(problem: Problem, params: Mapping[str, Any], estimator: str, num_samples: int) -> str | None:
    """The reason that an estimator gives for rejecting a problem at a number of samples; None if it accepts it."""
    loss = jax.value_and_grad(loss_under(problem, estimator, num_samples))
    try:
        jax.eval_shape(loss, as_arrays(params), jax.random.key(0))
    except (TypeError, ValueError) as error:
        return str(error)
    return None
