"""Gumbel-softmax and straight-through: biased derivatives along a continuous relaxation of discrete latents."""

from typing import Any

import jax
from jax import lax

from vae_jax import distributions
from vae_jax.estimators.differentiability import check_differentiable
from vae_jax.estimators.discrete_latents import RelaxableLatent, relaxable_latents
from vae_jax.estimators.gradient_terms import differentiable_once
from vae_jax.estimators.objective_values import values_at
from vae_jax.typing import Distributions, Objective, PRNGKey, Scalar

WITHOUT_DERIVATIVE = "relax, or disarm or categorical_disarm"
"""Estimators for discrete latents whose objective has no derivative between the outcomes."""


def gumbel_softmax(
    objective: Objective, q: Distributions, key: PRNGKey, num_samples: int, *, temperature: float | Scalar = 0.5
) -> Scalar:
    """The pathwise gradient of the relaxed objective (Gumbel-softmax, or concrete).

    The relaxation of a Bernoulli latent is the binary concrete distribution.

    Approximates: d/dtheta E_q[f(z)] by the mean of df(r)/dtheta at relaxed samples r.
    Needs: Bernoulli or OneHotCategorical latents; an objective defined and differentiable between the outcomes.
    Biased: yes, value and gradient: they are those of the relaxed objective. The bias falls with the temperature while
        the variance grows. Derivatives of any order are those of the relaxed objective.

    Args:
        objective: a function of one sample and `q` that returns a scalar; it sees relaxed samples, floats, and `q`
            itself.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, the number of samples that are averaged.
        temperature: the temperature of the relaxation, positive.

    Returns:
        The mean of the relaxed objective, whose gradient is the estimate.

    Raises:
        TypeError: a latent is continuous, or a Categorical of integers, or the objective uses one without a derivative.
        ValueError: a temperature that is not positive, no samples, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # the exact value is 4 sigmoid(logit)
        ...     q = dist.Bernoulli(logits=logit)
        ...     return vj.gumbel_softmax(lambda b, q: (2.0 * b) ** 2, q, jax.random.key(0), 10_000, temperature=0.1)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        1.9, gradient 1.0

    Reference: Jang, Gu & Poole (2017), section 2; Maddison, Mnih & Teh (2017), section 3.
    """
    check_temperature(temperature)
    latents = relaxable_latents(q, num_samples)
    relaxed = [
        latent.relaxed(noisy, temperature)
        for latent, noisy in zip(latents, noisy_logits(latents, key, num_samples), strict=True)
    ]
    samples = distributions.unflatten(q, relaxed)
    check_differentiable(objective, samples, q, instead=WITHOUT_DERIVATIVE)
    return values_at(objective, samples, q).mean()


def straight_through(
    objective: Objective, q: Distributions, key: PRNGKey, num_samples: int, *, temperature: float | Scalar = 0.5
) -> Scalar:
    """The objective at hard samples, with the gradient of relaxed ones (straight-through Gumbel-softmax).

    Approximates: d/dtheta E_q[f(z)] by the mean of df(z)/dz dr/dtheta, z the hard sample and r the relaxed one.
    Needs: Bernoulli or OneHotCategorical latents; an objective differentiable at the outcomes.
    Biased: the gradient in q's parameters is; the value and the gradient in model parameters are not. First
        derivatives only: a second one in q's parameters is refused.

    Arguments and errors as for `gumbel_softmax`; the objective sees hard samples, as floats.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # exactly 4 sigmoid(logit), of gradient 1
        ...     q = dist.Bernoulli(logits=logit)
        ...     return vj.straight_through(lambda b, q: (2.0 * b) ** 2, q, jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")  # the gradient alone is biased
        2.0, gradient 0.9

    Reference: Jang, Gu & Poole (2017), section 2.2; Bengio, Leonard & Courville (2013).
    """
    check_temperature(temperature)
    latents = relaxable_latents(q, num_samples)
    samples = []
    for latent, noisy in zip(latents, noisy_logits(latents, key, num_samples), strict=True):
        relaxed = latent.relaxed(noisy, temperature)
        samples.append(_along_relaxed(lax.stop_gradient(latent.hard(noisy)), relaxed))
    check_differentiable(objective, distributions.unflatten(q, samples), q, instead=WITHOUT_DERIVATIVE)
    return values_at(objective, distributions.unflatten(q, samples), q).mean()


@jax.custom_jvp
def _along_relaxed(hard: jax.Array, relaxed: jax.Array) -> jax.Array:
    """Hard samples with the first derivative of relaxed ones, which is biased: there is no second."""
    return hard


@_along_relaxed.defjvp
def _along_relaxed_jvp(primals: Any, tangents: Any) -> Any:
    return _along_relaxed(*primals), tangents[1] * differentiable_once(primals[1].dtype, primals[1])


def noisy_logits(latents: list[RelaxableLatent], key: PRNGKey, num_samples: int) -> list[jax.Array]:
    """The logits of each latent with S draws of its noise added, [S, ...]."""
    latent_keys = jax.random.split(key, len(latents))
    return [
        latent.logits[None] + latent.noise(latent_key, num_samples)
        for latent, latent_key in zip(latents, latent_keys, strict=True)
    ]


def check_temperature(temperature: float | Scalar) -> None:
    """Raises ValueError for a number that is not positive. What is traced has no number yet."""
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}: raise it")
