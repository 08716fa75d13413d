"""The importance-weighted bound of a linear Gaussian model, estimated and exact."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpyro.distributions as dist

from vae_jax.bounds import MultiSampleBound, importance_weighted
from vae_jax.problems import LinearGaussian
from vae_jax.typing import PRNGKey, Scalar

PROBLEM = LinearGaussian()

PARAMS: dict[str, float] = {**PROBLEM.default_params, "prior_loc": PROBLEM.prior_loc}
"""q is off the posterior and wider."""


def estimated_bound(params: dict[str, Any], key: PRNGKey, *, gradient: MultiSampleBound, num_samples: int) -> Scalar:
    """The bound of a `LinearGaussian` whose prior's location is a parameter of the model."""

    def log_joint(z: Any) -> Scalar:
        prior, likelihood = dist.Normal(params["prior_loc"], PROBLEM.prior_scale), dist.Normal(z, PROBLEM.noise_scale)
        return prior.log_prob(z) + likelihood.log_prob(PROBLEM.x)

    return importance_weighted(log_joint, PROBLEM.q(params), key, num_samples, gradient=gradient)


def exact_bound(params: Mapping[str, float], num_samples: int) -> float:
    """E[log 1/K sum_k w_k] (nats), q wider than the posterior so that the weights are bounded.

    log s is the integral of {exp(-t) - exp(-t s)} / t over t > 0, and the mean of exp(-t s) for the mean of the weights
    is a power of that for one of them. The weights are divided by p(x), so that their mean is one.
    """
    problem = replace(PROBLEM, prior_loc=params["prior_loc"])
    weights, mass = _importance_weights(problem, params)
    log_step = 0.05
    # In log t the integrand falls as t^2 below, and above as the mass of the noise whose weights are that small.
    t = np.exp(np.arange(-20.0, math.log(num_samples) + 40, log_step))
    # Less one, so that no digit is lost where t is small.
    power = num_samples * np.log1p(np.maximum(np.expm1(-np.outer(t / num_samples, weights)) @ mass, -1 + 1e-15))
    return problem.log_evidence + float((np.expm1(-t) - np.expm1(power)).sum() * log_step)


def _importance_weights(problem: LinearGaussian, params: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """p(z | x) / q(z) at values of q's noise, and the mass of each."""
    step = 0.02
    noise = np.arange(-9, 9 + step, step)
    mass = np.exp(-(noise**2) / 2) * step / math.sqrt(2 * math.pi)
    posterior = problem.posterior
    standard = (params["loc"] + params["scale"] * noise - posterior.loc) / posterior.scale
    return params["scale"] / posterior.scale * np.exp((noise**2 - standard**2) / 2), mass


def exact_means(num_samples: int) -> dict[str, float]:
    """The bound's derivatives by central differences."""
    step = 1e-3

    def derivative(name: str) -> float:
        ends = [exact_bound({**PARAMS, name: PARAMS[name] + side * step}, num_samples) for side in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    return {name: derivative(name) for name in PARAMS}
