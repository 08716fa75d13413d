"""The evidence lower bound, whole and in two terms."""

from collections.abc import Callable
from typing import NamedTuple

from vae_jax.bounds.log_weights import carried_log_weight
from vae_jax.carried_draws import source_of
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
        log_joint: a function of one sample that returns log p(x, z), normalised in x and z. It may close over model
            parameters, whose gradient is correct under every estimator.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: the number of samples of q that are averaged.
        estimator: the estimator of the gradient.
        closed_form: a function of q that replaces the sampled -log q(z). With a log joint it is
            `distributions.entropy`. With a log likelihood in the place of the log joint it is minus the
            Kullback-Leibler divergence to the prior.

    Returns:
        An unbiased estimate of the bound, a scalar (nats).

    Raises:
        TypeError, ValueError: as the estimator.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def log_joint(z):  # z ~ Normal(0, 1), x ~ Normal(z, 1), and x = 1.5 is observed
        ...     return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.5)
        >>> def elbo(loc):  # exactly -2.54 + 1.5 loc - loc^2 for q = Normal(loc, 1)
        ...     return vj.elbo(log_joint, dist.Normal(loc, 1.0), jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(elbo))(0.25)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        -2.2, gradient 1.0

    Reference: Jordan, Ghahramani, Jaakkola & Saul (1999), eq. 39; Kingma & Welling (2014), eqs. 3 and 7.
    """
    if closed_form is None:
        weight, base = carried_log_weight(log_joint, q)
        return estimator(weight, base, key, num_samples)
    # Outside the estimator: one that stops gradients to q would stop this term's too.
    return _expected(log_joint, q, key, num_samples, estimator) + closed_form(q)


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
    """The two terms of the ELBO, E_q[log p(x | z)] and the divergence of q from the prior (nats).

    They can be weighted, or monitored, apart. A sampled divergence is estimated from the draws of the reconstruction:
    every estimator makes the same draws from the same key, and is linear in its objective. So with `log_prior` the
    difference of the terms is the `elbo` of the log joint, gradient included, up to rounding. The exceptions enter each
    term apart: a baseline that is not linear in the values, and the entropy of `closed_form_entropy`. With `divergence`
    the difference is the `elbo` of the log likelihood with minus the divergence as its `closed_form`.

    Args:
        log_likelihood: a function of one sample that returns log p(x | z), normalised in x. It may close over model
            parameters.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: the number of samples of q that are averaged.
        estimator: the estimator of the gradient, also of a sampled divergence.
        log_prior: a function of one sample that returns log p(z), normalised, for the Kullback-Leibler divergence from
            the samples.
        divergence: a function of q that returns a divergence in closed form. The terms make a bound where it is the
            Kullback-Leibler divergence to the prior.

    Returns:
        Both terms, scalars (nats). The ELBO is the first less the second.

    Raises:
        ValueError: not exactly one of `log_prior` and `divergence` is given, or as the estimator.
        TypeError: as the estimator.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> q = dist.Normal(jnp.array(0.5), jnp.array(1.0))  # the prior of z is Normal(0, 1)
        >>> terms = vj.elbo_terms(
        ...     lambda z: dist.Normal(z, 1.0).log_prob(1.5), q, jax.random.key(0), 10_000,
        ...     divergence=lambda q: vj.kl_standard_normal(q.loc, q.scale),
        ... )
        >>> print(f"{terms.reconstruction:.1f}, {terms.divergence:.3f}")
        -1.9, 0.125

    Reference: Kingma & Welling (2014), eqs. 3 and 7.
    """
    reconstruction = _expected(log_likelihood, q, key, num_samples, estimator)
    if log_prior is not None and divergence is None:
        weight, base = carried_log_weight(log_prior, q)
        return ElboTerms(reconstruction, -estimator(weight, base, key, num_samples))
    if divergence is not None and log_prior is None:
        return ElboTerms(reconstruction, divergence(q))
    given = "neither" if divergence is None else "both"
    raise ValueError(f"elbo_terms must be given log_prior or divergence, got {given}: divergence is a closed form")


def _expected(
    log_density: LogDensity, q: Distributions, key: PRNGKey, num_samples: int, estimator: Estimator
) -> Scalar:
    """E_q[log_density], from the draws that samples of q are made of."""
    base, carry, _ = source_of(q)
    return estimator(lambda draw, _: log_density(carry(draw)[0]), base, key, num_samples)
