"""The importance-weighted bound against quadrature on a linear-Gaussian model, and the ELBO in two terms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

from monte_carlo import assert_unbiased, is_biased
from vae_jax import (
    distributions,
    doubly_reparameterized,
    elbo,
    elbo_terms,
    gradient_statistics,
    importance_weighted,
    kl_diagonal_gaussian,
    log_weights,
    score_function,
)
from vae_jax.bounds import plain
from vae_jax.estimators import ESTIMATORS

X = 1.5
PARAMS = {"model_loc": 0.3, "loc": 0.5, "scale": 0.8}
GRADIENTS = [plain, doubly_reparameterized]


def log_prior(model_loc, z):
    return dist.Normal(model_loc, 1.0).log_prob(z)


def log_likelihood(z):
    return dist.Normal(z, 1.0).log_prob(X)


def log_joint(model_loc, z):
    """z ~ N(model_loc, 1), x ~ N(z, 1)."""
    return log_prior(model_loc, z) + log_likelihood(z)


def log_evidence(model_loc):
    return norm.logpdf(X, model_loc, np.sqrt(2))


def bound_at(params, key, num_samples, gradient=plain):
    q = dist.Normal(params["loc"], params["scale"])
    return importance_weighted(partial(log_joint, params["model_loc"]), q, key, num_samples, gradient=gradient)


def exact_bound(params, num_samples, num_nodes=40):
    """E[log 1/K sum_k w_k] by a Gauss-Hermite product rule over the K noises."""
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    node_weights = node_weights / node_weights.sum()
    z = params["loc"] + params["scale"] * nodes
    joint = norm.logpdf(z, params["model_loc"], 1) + norm.logpdf(X, z, 1)
    log_weight = joint - norm.logpdf(z, params["loc"], params["scale"])
    total = 0.0
    for index in np.ndindex(*(num_nodes,) * num_samples):
        chosen = list(index)
        total += np.prod(node_weights[chosen]) * np.log(np.mean(np.exp(log_weight[chosen])))
    return total
