"""Bounds from the power means of the weights: the Rényi family and the chi upper bound."""

import math
from collections.abc import Callable, Mapping

import jax
from jaxtyping import Array, Float

from vae_jax.bounds.importance_weighted import MultiSampleBound, doubly_reparameterized, plain
from vae_jax.bounds.log_weights import log_mean_exp, path_log_weights, slowed_log_weights
from vae_jax.typing import Distributions, LogDensity, PRNGKey, Scalar

LogWeights = Float[Array, " K"]


def renyi(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    alpha: float | int,
    gradient: MultiSampleBound = plain,
) -> Scalar:
    """The variational Rényi bound 1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha) (nats), from one set of K samples.

    As K grows it tends to log p(x) minus the Rényi divergence of order alpha of q from the posterior. At alpha = 1 it
    is the ELBO, at 0 the importance-weighted bound; from 0 upwards it is a lower bound on log p(x) that falls with
    alpha. Below 0 the limit is an upper bound, while the estimate from K samples, which is the ELBO's at K = 1, rises
    to that limit from below: at a small K it may lie on either side of log p(x).

    Approximates: the gradient of E[1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha)].
    Needs: reparameterizable distributions; a log joint differentiable in the sample.
    Biased: no, as a gradient of the bound of K samples. As one of its limit in K, by O(1/K) unless alpha = 1.
        Derivatives of any order are those of that expectation.

    Args:
        log_joint: a function of one sample that returns log p(x, z), normalised in x and z. It may close over model
            parameters.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: K.
        alpha: the order, known before tracing. Rounding grows as 1 / |1 - alpha|: in float32 take 1 itself rather than
            a number within 1e-3 of it.
        gradient: `plain` differentiates along the samples' paths; `doubly_reparameterized` gives q's parameters the sum
            of v_k {alpha + (1 - alpha) v_k} (d log w_k / dz_k) dz_k, where v are the normalised w^(1 - alpha), so that
            it is sticking the landing at alpha = 1.

    Returns:
        The estimate of the bound, a scalar (nats).

    Raises:
        TypeError: a distribution is not reparameterizable, or alpha is not a number known before tracing.
        ValueError: alpha is not finite, another gradient, no samples, a batch shape, or a log joint that is not scalar.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> q = problem.q({"loc": 0.25, "scale": 1.0})
        >>> def bound(alpha):
        ...     return vj.renyi(problem.log_joint, q, jax.random.key(1), 10_000, alpha=alpha)
        >>> print(f"{bound(1):.1f} < {bound(0.5):.1f} < {bound(0):.2f}")  # from the ELBO to log p(x)
        -2.2 < -2.0 < -1.83

    Reference: Li & Turner (2016), eqs. 9 and 13; Geffner & Domke (2021) for the doubly reparameterized gradient.
    """
    if not isinstance(alpha, float | int):
        raise TypeError(f"alpha must be a float known before tracing, got {type(alpha).__name__}")
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, got {alpha}: change it")
    if gradient not in _LOG_WEIGHTS:
        name = getattr(gradient, "__name__", type(gradient).__name__)
        raise ValueError(f"gradient must be plain or doubly_reparameterized, got {name}: use one of them")
    return _log_power_mean(_LOG_WEIGHTS[gradient](log_joint, q, key, num_samples, alpha), alpha)


def chi(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    order: float | int = 2,
    gradient: MultiSampleBound = plain,
) -> Scalar:
    """The chi upper bound CUBO_n, 1/n log 1/K sum_k w_k^n (nats), from one set of K samples.

    Its limit in K is an upper bound on log p(x), to be minimised. It is the Rényi bound of alpha = 1 - n. The estimate
    from K samples is below that limit on average, and equals the ELBO's at K = 1. It is an upper bound only where K is
    large compared with the variance of w^n. Together with the ELBO it encloses log p(x).

    Approximates: the gradient of E[1/n log 1/K sum_k w_k^n].
    Needs: reparameterizable distributions; a log joint differentiable in the sample; tails of q that keep E_q[w^n]
        finite.
    Biased: no, as a gradient of the estimate from K samples. As one of the upper bound, by O(1/K).
        Derivatives of any order are those of that expectation.

    Args:
        log_joint, q, key, num_samples, gradient: as for `renyi`.
        order: n, at least 1, known before tracing. 1 gives the importance-weighted bound.

    Returns:
        The estimate of the bound, a scalar (nats).

    Raises:
        TypeError: as `renyi`.
        ValueError: the order is below 1, or as `renyi`.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> q = problem.q({"loc": 0.5, "scale": 0.8})
        >>> lower = vj.elbo(problem.log_joint, q, jax.random.key(1), 10_000)
        >>> upper = vj.chi(problem.log_joint, q, jax.random.key(1), 10_000, order=2)
        >>> print(f"{lower:.1f} < {problem.log_evidence:.2f} < {upper:.1f}")
        -1.9 < -1.83 < -1.8

    Reference: Dieng, Tran, Ranganath, Paisley & Blei (2017), eqs. 3 and 5.
    """
    if not order >= 1:
        raise ValueError(f"order must be at least 1, got {order}: raise it")
    return renyi(log_joint, q, key, num_samples, alpha=1 - order, gradient=gradient)


def _along_paths(
    log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int, alpha: float | int
) -> LogWeights:
    del alpha
    return path_log_weights(log_joint, q, key, num_samples)


def _along_slowed_paths(
    log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int, alpha: float | int
) -> LogWeights:
    def pace(logs: LogWeights) -> LogWeights:
        return alpha + (1 - alpha) * jax.nn.softmax((1 - alpha) * logs)

    return slowed_log_weights(log_joint, q, key, num_samples, pace=pace)


_LOG_WEIGHTS: Mapping[MultiSampleBound, Callable[..., LogWeights]] = {
    plain: _along_paths,
    doubly_reparameterized: _along_slowed_paths,
}


def _log_power_mean(logs: LogWeights, alpha: float | int) -> Scalar:
    if alpha == 1:
        return logs.mean()
    return log_mean_exp((1 - alpha) * logs) / (1 - alpha)
