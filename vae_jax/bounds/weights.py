"""The log weights that every bound is made of, and sums of them that lose no digits."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.estimators.average import values_at
from vae_jax.typing import Distributions, Latents, LogDensity, Objective, PRNGKey, Scalar


def log_weights(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Float[Array, " S"]:
    """log p(x, z) - log q(z) (nats) at samples of q, for bounds, evidence estimates and their diagnostics.

    They are differentiable along the samples' paths where every distribution of `q` is reparameterizable.

    Args:
        log_joint: one sample to log p(x, z).
        q: the proposal, or a pytree of independent ones.
        key: consumed.
        num_samples: S, how many samples are drawn.

    Raises:
        TypeError: a leaf of `q` is not a distribution.
        ValueError: no samples, a batch shape, or a log joint that is not scalar.
    """
    leaves = jax.tree.leaves(q, is_leaf=distributions.is_distribution)
    reparameterizable = all(getattr(leaf, "has_rsample", False) for leaf in leaves)
    draw = distributions.rsample if reparameterizable else distributions.sample
    return values_at(log_weight(log_joint), draw(q, key, num_samples), q)


def log_weight(log_joint: LogDensity) -> Objective:
    """log p(x, z) - log q(z) (nats) as the objective of an estimator."""

    def of_sample(sample: Latents, q: Distributions) -> Any:
        return log_joint(sample) - distributions.log_prob(q, sample)

    return of_sample


def path_log_weights(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Float[Array, " K"]:
    """The log weights (nats) with their total derivative along the samples' paths."""
    return values_at(log_weight(log_joint), distributions.rsample(q, key, num_samples), q)


def slowed_log_weights(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    pace: Callable[[Float[Array, " K"]], Float[Array, " K"]],
) -> Float[Array, " K"]:
    """The log weights (nats) under a `q` held fixed, each sample's path slowed by a factor.

    Args:
        log_joint, q, key, num_samples: as for `log_weights`.
        pace: the log weights [K] to the factors [K], which get no gradient.
    """
    held = jax.tree.map(lax.stop_gradient, q)
    samples = distributions.rsample(q, key, num_samples)
    ends = lax.stop_gradient(samples)
    factors = lax.stop_gradient(pace(values_at(log_weight(log_joint), ends, held)))

    def slow(sample: Array, end: Array) -> Array:
        return end + jax.vmap(jnp.multiply)(factors.astype(end.dtype), sample - end)

    return values_at(log_weight(log_joint), jax.tree.map(slow, samples, ends), held)


def log_mean_exp(logs: Float[Array, " K"]) -> Scalar:
    """The log of the mean of exponentials."""
    return jax.nn.logsumexp(logs) - math.log(logs.shape[0])


def others_log_sum_exp(logs: Float[Array, " K"]) -> Float[Array, " K"]:
    """log sum_{j != k} exp(logs_j) for each k of at least two."""
    return _of_the_others(logs, lax.cumlogsumexp, jnp.logaddexp)


def others_mean(values: Float[Array, " K"]) -> Float[Array, " K"]:
    """The mean of values_j over j != k for each k of at least two, where one of them may be infinite."""
    return _of_the_others(values, lax.cumsum, jnp.add) / (values.shape[0] - 1)


def _of_the_others(
    values: Float[Array, " K"], cumulative: Callable[..., Array], join: Callable[[Array, Array], Array]
) -> Float[Array, " K"]:
    # What stands before k joined with what stands after it: taking k away from the whole would lose the small ones.
    before, after = cumulative(values)[:-1], cumulative(values, reverse=True)[1:]
    return jnp.concatenate([after[:1], join(before[:-1], after[1:]), before[-1:]])
