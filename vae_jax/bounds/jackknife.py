"""Estimates of log p(x) that are less biased than the importance-weighted bound, and bound nothing."""

import math
from itertools import combinations

import jax
import numpy as np
from jaxtyping import Array, Float

from vae_jax.bounds.log_weights import log_mean_exp, others_log_sum_exp, path_log_weights
from vae_jax.typing import Distributions, LogDensity, PRNGKey, Scalar


def jackknife(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    order: int = 1,
) -> Scalar:
    """The jackknife importance-weighted estimate of log p(x) (nats), from one set of K samples.

    At order 1 it is K L_K - (K - 1) mean_k L_-k, where L_K is the importance-weighted bound's estimate and L_-k that
    without sample k. At order m it combines the estimates from all subsets that leave out up to m samples. It is not a
    bound: the mean may lie on either side of log p(x).

    Approximates: log p(x), with a bias of O(K^-(order + 1)) where the bound's is O(K^-1), and a larger variance; the
        gradient of that expectation along the samples' paths.
    Needs: reparameterizable distributions; a log joint differentiable in the sample; more samples than the order. Order
        1 costs what the bound does, order m as much as K^m / m! of them.
    Biased: yes, as an estimate of log p(x); no, as a gradient of its own expectation.

    Args:
        log_joint: a function of one sample that returns log p(x, z), normalised in x and z. It may close over model
            parameters.
        q: the proposal, or a pytree of independent ones.
        key: consumed.
        num_samples: K.
        order: m. At 0 the estimate is the importance-weighted bound. The rounding error grows as K^m / m!.

    Returns:
        The estimate, a scalar (nats).

    Raises:
        TypeError: a distribution is not reparameterizable.
        ValueError: a negative order, no more samples than the order, a batch shape, or a log joint that is not scalar.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> q = problem.q({"loc": 0.0, "scale": 1.0})
        >>> keys = jax.random.split(jax.random.key(0), 10_000)
        >>> def of_key(key, order):
        ...     return vj.jackknife(problem.log_joint, q, key, 8, order=order)
        >>> bound, estimate = (jax.jit(jax.vmap(of_key, (0, None)), static_argnums=1)(keys, m).mean() for m in (0, 1))
        >>> print(f"bound {bound:.2f}, jackknife {estimate:.2f}, exact {problem.log_evidence:.2f}")
        bound -1.88, jackknife -1.82, exact -1.83

    Reference: Nowozin (2018), eqs. 10 and 13.
    """
    if order < 0:
        raise ValueError(f"order must be at least 0, got {order}: raise it")
    if num_samples <= order:
        raise ValueError(f"num_samples must be more than the order {order}, got {num_samples}: raise it")
    logs = path_log_weights(log_joint, q, key, num_samples)
    # The coefficients alternate and grow, but add up to one, so only the small rises are multiplied by them.
    rises = (_coefficient(num_samples, order, left_out) * _rise(logs, left_out) for left_out in range(1, order + 1))
    return log_mean_exp(logs) - sum(rises)


def _coefficient(num_samples: int, order: int, left_out: int) -> float:
    """Jackknife weight of the estimates from K - j samples at order m: (-1)^j (K - j)^m / {(m - j)! j!}."""
    size = (num_samples - left_out) ** order
    return (-1) ** left_out * size / (math.factorial(order - left_out) * math.factorial(left_out))


def _rise(logs: Float[Array, " K"], left_out: int) -> Scalar:
    """The estimate from all K samples less those without j of them, on average."""
    removed, kept = _split(logs, left_out)
    # The log of the ratio of two sums, never the difference of their logs.
    return jax.nn.softplus(removed - kept).mean() - math.log(len(logs) / (len(logs) - left_out))


def _split(logs: Float[Array, " K"], left_out: int) -> tuple[Float[Array, " subsets"], Float[Array, " subsets"]]:
    """The log sums over every j of the samples, and over the others."""
    if left_out == 1:
        return logs, others_log_sum_exp(logs)
    removed = np.array(list(combinations(range(len(logs)), left_out)))
    kept = np.array([np.setdiff1d(np.arange(len(logs)), subset) for subset in removed])
    return jax.nn.logsumexp(logs[removed], axis=1), jax.nn.logsumexp(logs[kept], axis=1)
