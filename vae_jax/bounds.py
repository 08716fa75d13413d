"""Lower bounds on the log marginal likelihood."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.estimators import pathwise
from vae_jax.estimators.average import values_at
from vae_jax.typing import Distributions, Estimator, Latents, LogDensity, Objective, PRNGKey, Scalar


def elbo(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    estimator: Estimator = pathwise,
    closed_form: Callable[[Distributions], Scalar] | None = None,
) -> Scalar:
    """The evidence lower bound E_q[log p(x, z) - log q(z)] (nats).

    The value is the bound's estimate under every estimator; only the gradient differs.

    Args:
        log_joint: one sample to log p(x, z), normalised in x and z. It may close over model parameters, whose gradient
            is right under every estimator.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: how many samples of q are averaged.
        estimator: how the gradient is obtained.
        closed_form: a function of q that replaces the sampled -log q(z): `distributions.entropy` beside a log joint,
            or minus a Kullback-Leibler divergence to the prior beside a log likelihood.

    Raises:
        TypeError, ValueError: as the estimator.

    Reference: Jordan, Ghahramani, Jaakkola & Saul (1999), eq. 39; Kingma & Welling (2014), eqs. 3 and 7.
    """
    if closed_form is None:
        return estimator(_log_weight(log_joint), q, key, num_samples)
    # Outside the estimator: one that stops gradients to q would stop this term's too.
    return estimator(lambda sample, _: log_joint(sample), q, key, num_samples) + closed_form(q)


class ElboTerms(NamedTuple):
    """An ELBO in two terms (nats): it is `reconstruction - divergence`."""

    reconstruction: Scalar
    divergence: Scalar


def elbo_terms(
    log_likelihood: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    estimator: Estimator = pathwise,
    log_prior: LogDensity | None = None,
    divergence: Callable[[Distributions], Scalar] | None = None,
) -> ElboTerms:
    """E_q[log p(x | z)] and the divergence of q from the prior, to be weighted or watched apart.

    A sampled divergence is estimated from the reconstruction's own draws: every estimator draws the same from the same
    key, and is linear in its objective. So with `log_prior` the difference of the terms is the `elbo` of the log joint,
    gradient included, up to rounding (a baseline of yours that is not linear in the values is subtracted from each
    term); with `divergence` it is the `elbo` of the log likelihood whose closed form is minus that.

    Args:
        log_likelihood: one sample to log p(x | z), normalised in x. It may close over model parameters.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: how many samples of q are averaged.
        estimator: how the gradient is obtained, of a sampled divergence too.
        log_prior: one sample to log p(z), normalised, for the Kullback-Leibler divergence from the samples.
        divergence: a function of q, for a divergence in closed form. The terms make a bound where it is the
            Kullback-Leibler divergence to the prior.

    Raises:
        ValueError: not exactly one of `log_prior` and `divergence` is given, or as the estimator.
        TypeError: as the estimator.

    Reference: Kingma & Welling (2014), eqs. 3 and 7.
    """
    reconstruction = estimator(lambda sample, _: log_likelihood(sample), q, key, num_samples)
    if log_prior is not None and divergence is None:
        return ElboTerms(reconstruction, -estimator(_log_weight(log_prior), q, key, num_samples))
    if divergence is not None and log_prior is None:
        return ElboTerms(reconstruction, divergence(q))
    given = "neither" if divergence is None else "both"
    raise ValueError(f"elbo_terms must be given log_prior or divergence, got {given}: divergence is a closed form")


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
    return values_at(_log_weight(log_joint), draw(q, key, num_samples), q)


MultiSampleBound: TypeAlias = Callable[[LogDensity, Distributions, PRNGKey, int], Scalar]
"""The importance-weighted bound with its gradient had in one way."""


def plain(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound, differentiated along the samples' paths.

    Approximates: the gradient of E[log 1/K sum_k w_k] by the sum of w~_k d log w_k, w~ the normalised weights.
    Needs: reparameterizable distributions; a log joint differentiable in the sample.
    Biased: no. The signal-to-noise ratio of q's gradient falls as 1 / sqrt(K).

    Arguments and errors as for `importance_weighted`.

    Reference: Burda, Grosse & Salakhutdinov (2016), section 3; Rainforth et al. (2018) for the signal-to-noise ratio.
    """
    samples = distributions.rsample(q, key, num_samples)
    return _log_mean_exp(values_at(_log_weight(log_joint), samples, q))


def doubly_reparameterized(log_joint: LogDensity, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The importance-weighted bound, the score of q in its gradient reparameterized once more.

    Approximates: the gradient in q's parameters by the sum of w~_k^2 (d log w_k / dz_k) dz_k, and that in the model's
        by the sum of w~_k d log p(x, z_k), w~ the normalised weights.
    Needs: reparameterizable distributions; a log joint differentiable in the sample.
    Biased: no. The signal-to-noise ratio of q's gradient grows as sqrt(K). The log joint is evaluated twice.

    Arguments and errors as for `importance_weighted`.

    Reference: Tucker, Lawson, Gu & Maddison (2019).
    """
    held = jax.tree.map(lax.stop_gradient, q)
    samples = distributions.rsample(q, key, num_samples)
    ends = lax.stop_gradient(samples)
    weights = lax.stop_gradient(jax.nn.softmax(values_at(_log_weight(log_joint), ends, held)))

    # Each path is slowed by its weight, and the gradient of the bound brings the second factor of it.
    def slow(sample: Array, end: Array) -> Array:
        return end + jax.vmap(jnp.multiply)(weights.astype(end.dtype), sample - end)

    return _log_mean_exp(values_at(_log_weight(log_joint), jax.tree.map(slow, samples, ends), held))


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
        gradient: `plain` or `doubly_reparameterized`.

    Raises:
        TypeError: a distribution is not reparameterizable.
        ValueError: no samples, a batch shape, or a log joint that is not scalar.

    Reference: Burda, Grosse & Salakhutdinov (2016), section 3.
    """
    return gradient(log_joint, q, key, num_samples)


def _log_weight(log_joint: LogDensity) -> Objective:
    def log_weight(sample: Latents, q: Distributions) -> Any:
        return log_joint(sample) - distributions.log_prob(q, sample)

    return log_weight


def _log_mean_exp(logs: Float[Array, " K"]) -> Scalar:
    return jax.nn.logsumexp(logs) - math.log(logs.shape[0])
