"""The log weights that every bound is made of, and sums of them that lose no digits."""

import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.carried_draws import source_of
from vae_jax.estimators.gradient_terms import held_at_first, slowed_at_first
from vae_jax.estimators.moving_supports import fixed_support
from vae_jax.estimators.objective_values import values_at
from vae_jax.rounded_draws import resolved
from vae_jax.typing import Distributions, Latents, LogDensity, Objective, PRNGKey, Scalar


def log_weights(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Float[Array, " S"]:
    """Log importance weights log p(x, z) - log q(z) (nats) at samples of q.

    Bounds, estimates of the evidence and their diagnostics are functions of them. They are differentiable along the
    samples' paths where every distribution of `q` is reparameterizable.

    Args:
        log_joint: a function of one sample that returns log p(x, z).
        q: the proposal, or a pytree of independent ones.
        key: consumed.
        num_samples: S, the number of samples.

    Returns:
        The log weights [S] (nats).

    Raises:
        TypeError: a leaf of `q` is not a distribution.
        ValueError: no samples, a batch shape, or a log joint that is not scalar.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> q = problem.q(problem.posterior._asdict())
        >>> logs = vj.bounds.log_weights(problem.log_joint, q, jax.random.key(0), 5)
        >>> logs.shape, np.allclose(logs, problem.log_evidence, atol=1e-5)  # under the posterior all are log p(x)
        ((5,), True)
    """
    weight, base = carried_log_weight(log_joint, q)
    leaves = jax.tree.leaves(base, is_leaf=distributions.is_distribution)
    reparameterizable = all(getattr(leaf, "has_rsample", False) for leaf in leaves)
    draw = distributions.rsample if reparameterizable else distributions.sample
    return values_at(weight, draw(base, key, num_samples), base)


def log_weight(log_joint: LogDensity) -> Objective:
    """log p(x, z) - log q(z) (nats) as the objective of an estimator."""

    def of_sample(sample: Latents, q: Distributions) -> Any:
        return log_joint(sample) - distributions.log_prob(q, sample)

    return of_sample


def carried_log_weight(log_joint: LogDensity, q: Distributions) -> tuple[Objective, Distributions]:
    """log p(x, z) - log q(z) (nats) as a function of a draw that z is made of, and the distributions of that draw.

    It has the expectation and the gradients of `log_weight`, without inverting a draw. It is NaN where rounding has
    moved too many draws to an edge of the support.
    """
    base, carry, _ = source_of(q)

    def of_draw(draw: Latents, base: Distributions) -> Any:
        sample, log_determinant = carry(draw)
        return resolved(base, log_joint(sample) + log_determinant - distributions.log_prob(base, draw))

    def of_sample(sample: Latents, q: Distributions) -> Any:
        return resolved(q, log_weight(log_joint)(sample, q))

    return of_sample if base is q else of_draw, base


def path_log_weights(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Float[Array, " K"]:
    """The log weights (nats) with their total derivative along the samples' paths."""
    weight, base = carried_log_weight(log_joint, q)
    return values_at(weight, distributions.rsample(base, key, num_samples), base)


def slowed_log_weights(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    pace: Callable[[Float[Array, " K"]], Float[Array, " K"]],
) -> Float[Array, " K"]:
    """The log weights (nats) under a `q` held fixed, each sample's path slowed by a factor, in the first derivative.

    Args:
        log_joint, q, key, num_samples: as for `log_weights`.
        pace: a function of the log weights [K] that returns the factors [K], which get no gradient at first.
    """
    weight, base = carried_log_weight(log_joint, q)
    samples = distributions.rsample(base, key, num_samples)
    ends, held = held_at_first((samples, base))
    factors = pace(values_at(weight, ends, held))
    slowed = slowed_at_first(factors, samples, held)
    held = held_at_first(base, until=(samples, factors))
    return values_at(weight, slowed, held) + fixed_support(base)


def log_mean_exp(logs: Float[Array, " K"]) -> Scalar:
    """The log of the mean of exponentials."""
    return jax.nn.logsumexp(logs) - math.log(logs.shape[0])


def others_log_sum_exp(logs: Float[Array, " K"]) -> Float[Array, " K"]:
    """log sum_{j != k} exp(logs_j) for each k of at least two."""
    chex.assert_rank(logs, 1)
    is_top = jnp.arange(logs.shape[0]) == jnp.argmax(logs)
    top = jnp.where(jnp.isfinite(logs.max()), logs.max(), 0)
    shares = jnp.exp(logs - top)
    # With the largest among the others their sum is at least 1, and taking one share away loses no digits. Without it,
    # the others are summed apart.
    rest = jnp.where(is_top, 1, shares.sum() - shares)
    of_others_than_top = jax.nn.logsumexp(jnp.where(is_top, -jnp.inf, logs))
    return jnp.where(is_top, of_others_than_top, top + jnp.log(rest))


def others_mean(values: Float[Array, " K"]) -> Float[Array, " K"]:
    """The mean of values_j over j != k for each k of at least two, where some of them may be minus infinity."""
    infinite = jnp.isneginf(values)
    finite = jnp.where(infinite, 0, values)
    mean = (finite.sum() - finite) / (values.shape[0] - 1)
    return jnp.where(infinite.sum() - infinite > 0, -jnp.inf, mean)
