"""Measured bias and variance of gradients through relaxations."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.studies.two_routes.exact_relaxed_gradients import exact_gradient, exact_moments
from benchmarks.studies.two_routes.two_routes_setting import LOGITS, NUM_SAMPLES, TARGET, TEMPERATURES, VALUES
from vae_jax.distributions import OneHotCategorical
from vae_jax.estimators import ESTIMATORS
from vae_jax.statistics import gradient_statistics
from vae_jax.typing import Distributions, Latents, Parameters, PRNGKey, Scalar

RELAXATIONS = ("gumbel_softmax", "straight_through")
REFERENCES = ("rebar", "score_function+leave_one_out")


def _cost(latents: Latents, q: Distributions) -> Scalar:
    """(values . z - target)^2, which is also defined between the outcomes."""
    return ((jnp.asarray(VALUES) * latents).sum() - TARGET) ** 2


def _loss(params: Parameters, key: PRNGKey, *, name: str) -> Scalar:
    """The expected cost by an estimator, at the temperature among the parameters where it has one.

    A parameter is traced, so that all temperatures share one compiled program.
    """
    estimator: Any = ESTIMATORS[name]
    if name != "score_function+leave_one_out":
        estimator = partial(estimator, temperature=params["temperature"])
    return estimator(_cost, OneHotCategorical(params["logits"]), key, NUM_SAMPLES)


LOSSES = {name: partial(_loss, name=name) for name in (*RELAXATIONS, *REFERENCES)}


def gradient_rows(key: PRNGKey, num_replicates: int) -> list[dict[str, Any]]:
    """Bias and variance of the gradient in every logit, by estimator and temperature."""
    return [
        _gradient_row(name, temperature, jax.random.fold_in(jax.random.fold_in(key, number), place), num_replicates)
        for number, name in enumerate(LOSSES)
        for place, temperature in enumerate(TEMPERATURES)
    ]


def _gradient_row(name: str, temperature: float, key: PRNGKey, num_replicates: int) -> dict[str, Any]:
    params = {"logits": jnp.asarray(LOGITS), "temperature": jnp.float32(temperature)}
    statistics = gradient_statistics(LOSSES[name], params, key, num_replicates, tail_size=0).gradient
    exact = exact_gradient()
    exact_mean, exact_variance = exact_moments(name, temperature)
    columns = {field: getattr(statistics, field)["logits"] for field in ("mean", "mean_se", "variance", "variance_se")}
    columns["bias"] = np.asarray(columns["mean"], float) - exact
    columns["exact_bias"] = exact_mean - exact
    columns["exact_variance"] = exact_variance
    row = {"estimator": name, "temperature": temperature, "num_replicates": num_replicates}
    return row | {field: _floats(column) for field, column in columns.items()}


def _floats(column: Any) -> list[float] | None:
    return None if column is None else np.asarray(column, float).tolist()
