"""The importance-weighted bound and its gradients: along paths, doubly reparameterized, and by score functions."""

import inspect
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.bounds.log_weights import (
    log_mean_exp,
    log_weight,
    others_log_sum_exp,
    others_mean,
    path_log_weights,
    slowed_log_weights,
)
from vae_jax.estimators.gradient_terms import gradient_term
from vae_jax.estimators.objective_values import values_at
from vae_jax.typing import Distributions, LogDensity, PRNGKey, Scalar

MultiSampleBound: TypeAlias = Callable[[LogDensity, Distributions, PRNGKey, int], Scalar]
"""The importance-weighted bound with one of its gradients."""


def plain(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound, differentiated along the samples' paths.

    Approximates: the gradient of E[log 1/K sum_k w_k] by the sum of w~_k d log w_k, w~ the normalised weights.
    Needs: reparameterizable distributions; a log joint differentiable in the sample.
    Biased: no. The signal-to-noise ratio of q's gradient falls as 1 / sqrt(K).

    Arguments and errors as for `importance_weighted`.

    Reference: Burda, Grosse & Salakhutdinov (2016), section 3; Rainforth et al. (2018) for the signal-to-noise ratio.
    """
    return log_mean_exp(path_log_weights(log_joint, q, key, num_samples))


def doubly_reparameterized(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound, the score of q in its gradient reparameterized once more.

    Approximates: the gradient in q's parameters by the sum of w~_k^2 (d log w_k / dz_k) dz_k, and that in the model's
        by the sum of w~_k d log p(x, z_k), w~ the normalised weights.
    Needs: reparameterizable distributions; a log joint differentiable in the sample.
    Biased: no. The signal-to-noise ratio of q's gradient grows as sqrt(K). The log joint is evaluated twice. First
        derivatives only.

    Arguments and errors as for `importance_weighted`.

    Reference: Tucker, Lawson, Gu & Maddison (2019).
    """
    # Each path is slowed by its weight, and the gradient of the bound brings the second factor of it.
    return log_mean_exp(slowed_log_weights(log_joint, q, key, num_samples, pace=jax.nn.softmax))


def vimco(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound, its score-function gradient with a baseline for each sample from the others.

    Approximates: the gradient in q's parameters by the sum of (L - L_-k) d log q(z_k) - w~_k d log q(z_k), and that in
        the model's by the sum of w~_k d log p(x, z_k), where L is the bound, w~ are the normalised weights, and L_-k is
        the bound with w_k replaced by the geometric mean of the other weights.
    Needs: at least 2 samples; a density differentiable in its parameters. Latents may be discrete.
    Biased: no. First derivatives only.

    Arguments and errors as for `importance_weighted`.

    Raises:
        ValueError: also where there is only one sample.

    Reference: Mnih & Rezende (2016), eqs. 7 to 10.
    """
    if num_samples == 1:
        raise ValueError(
            "vimco needs at least 2 samples, got 1: raise num_samples, or use elbo with score_function, which is the "
            "bound of one"
        )
    return _by_score(log_joint, q, key, num_samples, _local_signals)


def multi_sample_score_function(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound, its score-function gradient without a baseline.

    Approximates: the gradient in q's parameters by the sum of (L - w~_k) d log q(z_k), and that in the model's by the
        sum of w~_k d log p(x, z_k), where L is the bound and w~ are the normalised weights.
    Needs: a density differentiable in its parameters. Latents may be discrete.
    Biased: no. First derivatives only. Its variance grows with K, so `vimco` is to be preferred.

    Arguments and errors as for `importance_weighted`.

    Reference: Mnih & Rezende (2016), eq. 5.
    """
    return _by_score(log_joint, q, key, num_samples, log_mean_exp)


def importance_weighted(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    gradient: MultiSampleBound = plain,
) -> Scalar:
    """The importance-weighted bound E[log 1/K sum_k p(x, z_k) / q(z_k)] (nats), from one set of K samples.

    It is the ELBO at K = 1 and rises to log p(x) with K. The value is the bound's estimate under every gradient.

    Args:
        log_joint: one sample to log p(x, z), normalised in x and z. It may close over model parameters, whose gradient
            is right under every `gradient`.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: K. The samples are coupled: more of them is another bound, not a better estimate of this one.
        gradient: `plain`, `doubly_reparameterized`, `vimco` or `multi_sample_score_function`. No estimator of an
            expectation is one, whatever K: sticking the landing would be biased.

    Raises:
        TypeError: a distribution is not reparameterizable where the gradient needs it, or the gradient is an estimator
            of an expectation.
        ValueError: no samples, too few for the gradient, a batch shape, or a log joint that is not scalar.

    Reference: Burda, Grosse & Salakhutdinov (2016), section 3.
    """
    refuse_estimator(gradient)
    return gradient(log_joint, q, key, num_samples)


def refuse_estimator(gradient: MultiSampleBound) -> None:
    """Raises TypeError for an estimator of an expectation, whose first parameter is the objective."""
    if next(iter(inspect.signature(gradient).parameters), None) == "objective":
        name = getattr(getattr(gradient, "func", gradient), "__name__", type(gradient).__name__)
        raise TypeError(
            f"gradient must be one of a multi-sample bound, got the estimator {name}: use doubly_reparameterized "
            "instead of sticking_the_landing, plain instead of pathwise, vimco instead of score_function"
        )


def _by_score(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    signal: Callable[[Float[Array, " K"]], Array],
) -> Scalar:
    samples = distributions.sample(q, key, num_samples)
    # q keeps its gradient here: beyond one sample the weights' own dependence on it has a mean that is not zero.
    logs = values_at(log_weight(log_joint), samples, q)
    signals = jnp.broadcast_to(signal(lax.stop_gradient(logs)), logs.shape)
    return log_mean_exp(logs) + gradient_term(signals, distributions.log_probs(q, samples)).sum()


def _local_signals(logs: Float[Array, " K"]) -> Float[Array, " K"]:
    """L - L_-k for each k."""
    centred = logs - logs.max()
    others = others_log_sum_exp(centred)
    # The ratio of the two means, whose logs are too close to each other to be subtracted.
    signals = jax.nn.softplus(centred - others) - jax.nn.softplus(others_mean(centred) - others)
    # Where all the other weights are zero there is no baseline: that is known without sample k, so without bias.
    return jnp.where(jnp.isneginf(others), log_mean_exp(logs), signals)
