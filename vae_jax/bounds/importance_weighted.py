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
    carried_log_weight,
    log_mean_exp,
    others_log_sum_exp,
    others_mean,
    path_log_weights,
    slowed_log_weights,
)
from vae_jax.estimators.gradient_terms import density_ratio, derivative_of, gradient_term, held_at_first
from vae_jax.estimators.moving_supports import fixed_support
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

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> def bound(loc):
        ...     q = problem.q({"loc": loc, "scale": 1.0})
        ...     return vj.importance_weighted(problem.log_joint, q, jax.random.key(0), 1, gradient=vj.bounds.plain)
        >>> def elbo(loc):  # with one sample the bound is the ELBO
        ...     return vj.elbo(problem.log_joint, problem.q({"loc": loc, "scale": 1.0}), jax.random.key(0), 1)
        >>> print(f"{jax.jit(jax.grad(bound))(0.5) - jax.jit(jax.grad(elbo))(0.5):.4f}")
        0.0000

    Reference: Burda, Grosse & Salakhutdinov (2016), section 3; Rainforth et al. (2018) for the signal-to-noise ratio.
    """
    return log_mean_exp(path_log_weights(log_joint, q, key, num_samples))


def doubly_reparameterized(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound; the score of q in its gradient is reparameterized once more.

    Approximates: the gradient in q's parameters by the sum of w~_k^2 (d log w_k / dz_k) dz_k, and that in the model's
        by the sum of w~_k d log p(x, z_k), w~ the normalised weights.
    Needs: reparameterizable distributions; a log joint differentiable in the sample.
    Biased: no. The signal-to-noise ratio of q's gradient grows as sqrt(K). The log joint is evaluated twice.
        Derivatives of any order are correct.

    Arguments and errors as for `importance_weighted`.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> posterior = problem.posterior._asdict()
        >>> @jax.jit
        ... def bound(params):
        ...     q, key = problem.q(params), jax.random.key(0)
        ...     return vj.importance_weighted(problem.log_joint, q, key, 8, gradient=vj.doubly_reparameterized)
        >>> gradient = jax.grad(bound)(posterior)  # at the posterior it is zero for any key
        >>> bool(abs(gradient["loc"]) < 1e-5), bool(abs(gradient["scale"]) < 1e-5)
        (True, True)

    Reference: Tucker, Lawson, Gu & Maddison (2019).
    """
    # Each path is slowed by its weight, and the gradient of the bound brings the second factor of it.
    return log_mean_exp(slowed_log_weights(log_joint, q, key, num_samples, pace=jax.nn.softmax))


def vimco(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound; its score-function gradient has a baseline for each sample from the others.

    Approximates: the gradient in q's parameters by the sum of (L - L_-k) d log q(z_k) - w~_k d log q(z_k), and that in
        the model's by the sum of w~_k d log p(x, z_k), where L is the bound, w~ are the normalised weights, and L_-k is
        the bound with w_k replaced by the geometric mean of the other weights.
    Needs: at least 2 samples; a density differentiable in its parameters. Latents may be discrete.
    Biased: no. Derivatives of any order are correct.

    Arguments and errors as for `importance_weighted`.

    Raises:
        ValueError: also for a single sample.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> @jax.jit
        ... def bound(a):  # z ~ Bernoulli(1/2), x ~ Normal(a z, 1), and x = 2 is observed
        ...     def log_joint(z):
        ...         return dist.Bernoulli(0.5).log_prob(z) + dist.Normal(a * z, 1.0).log_prob(2.0)
        ...     return vj.vimco(log_joint, dist.Bernoulli(logits=0.0), jax.random.key(0), 10_000)
        >>> value, gradient = jax.value_and_grad(bound)(1.0)  # log p(x) = -1.91, whose gradient is 0.82
        >>> print(f"{value:.2f}, gradient {gradient:.2f}")
        -1.91, gradient 0.82

    Reference: Mnih & Rezende (2016), eqs. 7 to 10.
    """
    if num_samples == 1:
        raise ValueError(
            "vimco needs at least 2 samples, got 1: raise num_samples, or use elbo with score_function, which is the "
            "bound of one"
        )
    return _by_score(log_joint, q, key, num_samples, _local_signals)


def multi_sample_score_function(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound; its score-function gradient has no baseline.

    Approximates: the gradient in q's parameters by the sum of (L - w~_k) d log q(z_k), and that in the model's by the
        sum of w~_k d log p(x, z_k), where L is the bound and w~ are the normalised weights.
    Needs: a density differentiable in its parameters. Latents may be discrete.
    Biased: no. Derivatives of any order are correct. Its variance grows with K: prefer `vimco`.

    Arguments and errors as for `importance_weighted`.

    Example:
        >>> import jax
        >>> import numpy as np
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> q = problem.q({"loc": 0.0, "scale": 1.0})
        >>> def value(gradient):
        ...     return jax.jit(lambda key: gradient(problem.log_joint, q, key, 8))(jax.random.key(0))
        >>> np.allclose(value(vj.multi_sample_score_function), value(vj.vimco))  # only their gradients differ
        True

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
        log_joint: a function of one sample that returns log p(x, z), normalised in x and z. It may close over model
            parameters, whose gradient is correct under every `gradient`.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: K. The samples are coupled: more of them is another bound, not a better estimate of this one.
        gradient: `plain`, `doubly_reparameterized`, `vimco` or `multi_sample_score_function`. An estimator of an
            expectation is rejected, whatever K: sticking the landing, for one, would be biased here.

    Returns:
        An unbiased estimate of the bound of K samples, a scalar (nats).

    Raises:
        TypeError: a distribution is not reparameterizable where the gradient needs it, or the gradient is an estimator
            of an expectation.
        ValueError: no samples, too few for the gradient, a batch shape, or a log joint that is not scalar.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> q = problem.q({"loc": 0.0, "scale": 1.0})  # the prior as the proposal
        >>> bound = vj.importance_weighted(problem.log_joint, q, jax.random.key(0), 10_000)
        >>> print(f"{bound:.2f}, exact {problem.log_evidence:.2f}")  # the ELBO of this q is -2.54
        -1.83, exact -1.83

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
    weight, base = carried_log_weight(log_joint, q)
    samples = distributions.sample(base, key, num_samples)
    # q keeps its gradient here: beyond one sample the weights' own dependence on it has a mean that is not zero.
    logs = values_at(weight, samples, base)
    signals = jnp.broadcast_to(signal(lax.stop_gradient(logs)), logs.shape)
    bound = log_mean_exp(logs)
    log_densities = distributions.log_probs(base, samples) + fixed_support(base)
    held = held_at_first(log_densities, until=logs)
    ratio = density_ratio(held.sum())
    # Zero in value: the signal is the bound less a baseline that knows all samples but one.
    later = derivative_of(ratio * bound) - lax.stop_gradient(bound - signals) * (density_ratio(held) - 1)
    return ratio * bound + gradient_term(signals + later, log_densities).sum()


def _local_signals(logs: Float[Array, " K"]) -> Float[Array, " K"]:
    """L - L_-k for each k."""
    centred = logs - logs.max()
    others = others_log_sum_exp(centred)
    # The ratio of the two means, whose logs are too close to each other to be subtracted.
    signals = jax.nn.softplus(centred - others) - jax.nn.softplus(others_mean(centred) - others)
    # Where all the other weights are zero there is no baseline: that is known without sample k, so without bias.
    return jnp.where(jnp.isneginf(others), log_mean_exp(logs), signals)
