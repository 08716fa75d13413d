"""The evidence lower bound, whole and in two terms."""

from collections.abc import Callable
from typing import NamedTuple

from vae_jax.bounds.log_weights import log_weight
from vae_jax.estimators import pathwise
from vae_jax.typing import Distributions, Estimator, LogDensity, PRNGKey, Scalar


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
        return estimator(log_weight(log_joint), q, key, num_samples)
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
    gradient included, up to rounding (but for what is not linear in the values and enters each term apart: a baseline
    of yours, or the entropy of `closed_form_entropy`). With `divergence` it is the `elbo` of the log likelihood whose
    closed form is minus that.

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
        return ElboTerms(reconstruction, -estimator(log_weight(log_prior), q, key, num_samples))
    if divergence is not None and log_prior is None:
        return ElboTerms(reconstruction, divergence(q))
    given = "neither" if divergence is None else "both"
    raise ValueError(f"elbo_terms must be given log_prior or divergence, got {given}: divergence is a closed form")
