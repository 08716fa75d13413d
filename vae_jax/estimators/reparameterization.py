"""Estimators that differentiate along the samples' paths."""

import jax
from jax import lax

from vae_jax import distributions
from vae_jax.estimators.average import values_at
from vae_jax.typing import Distributions, Objective, PRNGKey, Scalar


def pathwise(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The total derivative along reparameterized samples.

    Approximates: d/dtheta E_q[f(z; theta)] by the mean of df/dz dz/dtheta + df/dtheta.
    Needs: reparameterizable distributions; an objective differentiable in the sample.
    Biased: no.

    Args:
        objective: one sample and `q` to a scalar.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, how many samples are averaged.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Raises:
        TypeError: a distribution is not reparameterizable.
        ValueError: no samples, a batch shape, or an objective that is not scalar.

    Reference: Kingma & Welling (2014), eq. 6; Mohamed, Rosca, Figurnov & Mnih (2020), section 5.
    """
    samples = distributions.rsample(q, key, num_samples)
    return values_at(objective, samples, q).mean()


def sticking_the_landing(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The path derivative alone: the objective sees `q` with its parameters held fixed.

    Where the objective is log p - log q this drops the score of q, whose mean is zero, and the variance vanishes as q
    reaches the posterior.

    Approximates: d/dtheta E_q[log p(z) - log q(z; theta)] by the mean of d(log p - log q)/dz dz/dtheta.
    Needs: reparameterizable distributions; an objective differentiable in the sample that depends on q through
        log q(z) alone.
    Biased: no.

    Arguments, result and errors as for `pathwise`.

    Reference: Roeder, Wu & Duvenaud (2017), eq. 6.
    """
    samples = distributions.rsample(q, key, num_samples)
    return values_at(objective, samples, jax.tree.map(lax.stop_gradient, q)).mean()
