"""`fit` compared with NumPyro's `SVI.run`: the same model, mean-field normal, optimizer and number of particles."""

import contextlib
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal

from benchmarks.interleaved_timing import interleaved, ratios
from vae_jax.inference.fit.families import MeanFieldNormal
from vae_jax.inference.fit.fit import fit
from vae_jax.inference.fit.numpyro_models import numpyro_log_joint

NUM_PARTICLES = 8

Model = Callable[[], None]
"""A NumPyro model that has its data."""


def numpyro_models() -> dict[str, Model]:
    """Two posteriors: the loop dominates the cost of one, and the data that of the other."""
    counts = jnp.asarray([3, 4, 3, 9, 10, 3, 2, 3, 3, 2])
    generator = np.random.default_rng(2)
    predictors = jnp.asarray(generator.normal(size=(1_000, 2)), jnp.float32)
    responses = jnp.asarray(generator.poisson(np.exp(3 + predictors @ np.array([0.5, -0.3]))))

    def poisson_gamma() -> None:
        u = numpyro.sample("u", dist.Gamma(5.0, 1.0))
        v = numpyro.sample("v", dist.Gamma(4.0, 4.0))
        numpyro.sample("x", dist.Poisson(u * v).expand([len(counts)]).to_event(1), obs=counts)

    def poisson_regression() -> None:
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
        slopes = numpyro.sample("slopes", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        rate = jnp.exp(intercept + predictors @ slopes)
        numpyro.sample("y", dist.Poisson(rate).to_event(1), obs=responses)

    return {"poisson_gamma": poisson_gamma, "poisson_regression": poisson_regression}


def fits(name: str, model: Model, steps: dict[str, int], rounds: int) -> dict[str, Any]:
    """Times steps of both, NumPyro with its progress bar, as a user gets it, and without.

    Args:
        name: of the model.
        model: the model.
        steps: numbers of steps: `steps` of a long run, `steps_with_bar` of one with the bar, `short_steps` of a run
            whose time is taken from theirs.
        rounds: that medians are taken over.
    """
    short = steps["short_steps"]
    ours, theirs = _our_fit(model), _numpyro_fit(model)
    runs: dict[str, tuple[Callable[[int], Any], int]] = {
        "vae_jax": (ours, steps["steps"]),
        "numpyro": (partial(theirs, progress_bar=True), steps["steps_with_bar"]),
        "numpyro_without_bar": (partial(theirs, progress_bar=False), steps["steps"]),
    }
    candidates = {
        (run, number): partial(function, number) for run, (function, long) in runs.items() for number in (long, short)
    }
    seconds = interleaved(candidates, rounds)
    of_a_step = {
        run: [(a - b) / (long - short) for a, b in zip(seconds[run, long], seconds[run, short], strict=True)]
        for run, (_, long) in runs.items()
    }
    return {
        "model": name,
        "particles": NUM_PARTICLES,
        "steps_a_second": {run: 1 / statistics.median(values) for run, values in of_a_step.items()},
        "seconds_of_the_short_run": {run: statistics.median(seconds[run, short]) for run in runs},
        "faster_than_numpyro": ratios(of_a_step["numpyro"], of_a_step["vae_jax"]),
        "faster_than_numpyro_without_bar": ratios(of_a_step["numpyro_without_bar"], of_a_step["vae_jax"]),
    }


def _our_fit(model: Model) -> Callable[[int], Any]:
    log_joint, supports = numpyro_log_joint(model)
    family, optimizer = MeanFieldNormal(supports), optax.adam(1e-3)

    def run(num_steps: int) -> Any:
        key = jax.random.key(0)
        fitted = fit(log_joint, family, key, optimizer=optimizer, num_steps=num_steps, num_samples=NUM_PARTICLES)
        return fitted.params

    return run


def _numpyro_fit(model: Model) -> Callable[..., Any]:
    svi = SVI(model, AutoNormal(model), optax.adam(1e-3), Trace_ELBO(num_particles=NUM_PARTICLES))

    def run(num_steps: int, *, progress_bar: bool) -> Any:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            return svi.run(jax.random.key(0), num_steps, progress_bar=progress_bar).params

    return run
