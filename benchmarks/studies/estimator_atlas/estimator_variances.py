"""The variance of gradient estimators, measured and exact."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from benchmarks.studies.estimator_atlas.cost_panels import Panel
from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import ExactMoments
from vae_jax.statistics import gradient_statistics
from vae_jax.typing import PRNGKey, Scalar

SAMPLES_OF_ESTIMATE = {
    "score_function": 1,
    "score_function+leave_one_out": 8,
    "pathwise": 1,
    "pathwise+delta_method": 1,
    "measure_valued": 1,
    "coupled_measure_valued": 1,
}
"""The compared estimators and the samples N in an estimate of each. Variances are multiplied by N."""

PARAMETERS = ("loc", "scale")

LEAST_VARIANCE = 1e-20
"""Below this an exact variance is only the rounding of its quadrature."""

Lines = Mapping[tuple[str, str, str], tuple[np.ndarray, np.ndarray]]
"""Values of k and the variance for each sample there, by cost, estimator and parameter."""


class VariancePoint(NamedTuple):
    """A variance for each sample, measured and exact."""

    cost: str
    estimator: str
    parameter: str
    k: float
    variance: float
    variance_se: float
    exact_variance: float
    exact_variance_se: float | None
    """The standard error that the measured variance really has."""


def measured_variances(
    key: PRNGKey, panels: Sequence[Panel], num_measured: int, num_replicates: int
) -> list[VariancePoint]:
    """Every estimator's variances at the given number of values of each cost's parameter."""
    points = []
    for number, panel in enumerate(panels):
        for place, estimator in enumerate(SAMPLES_OF_ESTIMATE):
            loss = functools.partial(_expected_cost, cost=panel.cost, estimator=estimator)
            keys = jax.random.split(jax.random.fold_in(key, number * 100 + place), num_measured)
            for k, draw_key in zip(panel.spaced(num_measured), keys, strict=True):
                points += _points_at(panel, estimator, float(k), loss, draw_key, num_replicates)
    return points


def _expected_cost(params: dict[str, Any], key: PRNGKey, *, cost: Callable[[Any, Any], Any], estimator: str) -> Scalar:
    k = lax.stop_gradient(params["k"])
    q = dist.Normal(params["loc"], params["scale"])
    return ESTIMATORS[estimator](lambda z, q: cost(z, k), q, key, SAMPLES_OF_ESTIMATE[estimator])


def _points_at(
    panel: Panel, estimator: str, k: float, loss: Callable[..., Scalar], key: PRNGKey, num_replicates: int
) -> list[VariancePoint]:
    params = {name: jnp.asarray(value) for name, value in {**panel.problem.default_params, "k": k}.items()}
    gradient = gradient_statistics(loss, params, key, num_replicates, tail_size=0).gradient
    num_samples = SAMPLES_OF_ESTIMATE[estimator]
    exact = _exact_moments(panel, estimator, k)
    points = []
    for name in PARAMETERS:
        std_se = exact[name].std_se(num_replicates)
        exact_variance = variance_of_sample(exact[name], num_samples)
        points.append(
            VariancePoint(
                panel.problem.name, estimator, name, k,
                variance=num_samples * float(gradient.variance[name]),
                variance_se=num_samples * float(gradient.variance_se[name]),
                exact_variance=exact_variance,
                # Without variance the kurtosis is not defined.
                exact_variance_se=2 * math.sqrt(num_samples * exact_variance) * std_se
                if exact_variance and std_se is not None else None,
            )
        )  # fmt: skip
    return points


def _exact_moments(panel: Panel, estimator: str, k: float) -> Mapping[str, ExactMoments]:
    problem = panel.problem_at(k)
    return problem.exact(problem.default_params, estimator)(SAMPLES_OF_ESTIMATE[estimator])


def variance_of_sample(moments: ExactMoments, num_samples: int) -> float:
    """The exact variance of an estimate times its number of samples."""
    if moments.std.value is None:
        raise ValueError(f"the exact std must be known, got status {moments.std.status}: compare another estimator")
    variance = num_samples * moments.std.value**2
    return variance if variance > LEAST_VARIANCE else 0.0


def exact_variances(panels: Sequence[Panel], num_drawn: int) -> Lines:
    """Every estimator's variances at the given number of values of each cost's parameter."""
    lines = {}
    for panel in panels:
        places = panel.spaced(num_drawn)
        for estimator, num_samples in SAMPLES_OF_ESTIMATE.items():
            moments = [_exact_moments(panel, estimator, k) for k in places]
            for name in PARAMETERS:
                variances = np.array([variance_of_sample(exact[name], num_samples) for exact in moments])
                lines[panel.problem.name, estimator, name] = places, variances
    return lines
