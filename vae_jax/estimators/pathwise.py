"""Derivatives along samples' paths: pathwise, sticking the landing, closed-form entropy and inverse CDF."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vae_jax import distributions
from vae_jax.estimators.differentiability import check_differentiable
from vae_jax.estimators.gradient_terms import held_at_first
from vae_jax.estimators.moving_supports import fixed_support
from vae_jax.estimators.objective_values import values_at
from vae_jax.estimators.quantiles import has_quantiles, midpoints, quantiles, uniform_shape
from vae_jax.typing import Distributions, Latents, Objective, PRNGKey, Scalar


def pathwise(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The total derivative along reparameterized samples.

    Approximates: d/dtheta E_q[f(z; theta)] by the mean of df/dz dz/dtheta + df/dtheta.
    Needs: reparameterizable distributions; an objective differentiable in the sample.
    Biased: no. Derivatives of any order are correct, where the distributions' samplers have them.

    Args:
        objective: a function of one sample and `q` that returns a scalar.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, the number of samples that are averaged.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Raises:
        TypeError: a distribution is not reparameterizable, or the objective uses a latent without a derivative.
        ValueError: no samples, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(loc):  # E[z^2] = loc^2 + 1
        ...     return vj.pathwise(lambda z, q: z**2, dist.Normal(loc, 1.0), jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.3)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.7, gradient 2.6

    Reference: Kingma & Welling (2014), eq. 6; Mohamed, Rosca, Figurnov & Mnih (2020), section 5.
    """
    samples = distributions.rsample(q, key, num_samples)
    check_differentiable(objective, samples, q)
    return values_at(objective, samples, q).mean()


def sticking_the_landing(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The path derivative alone: the objective sees `q` with its parameters held fixed.

    Where the objective is log p - log q this drops the score of q, whose mean is zero, and the variance vanishes as q
    reaches the posterior.

    Approximates: d/dtheta E_q[log p(z) - log q(z; theta)] by the mean of d(log p - log q)/dz dz/dtheta.
    Needs: reparameterizable distributions whose support does not move with their parameters; an objective
        differentiable in the sample that depends on q through log q(z) alone.
    Biased: no. Derivatives of any order are correct, where the distributions' samplers have them.

    Arguments, result and errors as for `pathwise`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(loc):  # E_q[log p - log q] for p = Normal(0, 1): -KL(q || p) = -loc^2 / 2
        ...     def objective(z, q):
        ...         return dist.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)
        ...     return vj.sticking_the_landing(objective, dist.Normal(loc, 1.0), jax.random.key(0), 1)
        >>> print(f"{jax.jit(jax.grad(estimate))(0.5):.3f}")  # exact from one sample: both scales are equal
        -0.500

    Reference: Roeder, Wu & Duvenaud (2017), eq. 6.
    """
    samples = distributions.rsample(q, key, num_samples)
    check_differentiable(objective, samples, q)
    return values_at(objective, samples, held_at_first(q)).mean() + fixed_support(q)


def closed_form_entropy(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The total derivative with the sampled -log q of the objective replaced by the entropy of q.

    Where the objective is log p - log q this leaves log p alone to be sampled. Any other objective gets log q added and
    the entropy, which on average is nothing.

    Approximates: d/dtheta E_q[log p(z) - log q(z; theta)] by the mean of d log p/dz dz/dtheta, plus d entropy/dtheta.
    Needs: reparameterizable distributions with an entropy in closed form; an objective differentiable in the sample.
    Biased: no. Derivatives of any order are correct, where the distributions' samplers have them.

    Arguments, result and errors as for `pathwise`.

    Raises:
        TypeError: a distribution has no entropy in closed form.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(scale):  # E_q[log p - log q] for p = Normal(0, 1)
        ...     def objective(z, q):
        ...         return dist.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)
        ...     return vj.closed_form_entropy(objective, dist.Normal(0.0, scale), jax.random.key(0), 10_000)
        >>> print(f"{jax.jit(jax.grad(estimate))(2.0):.1f}")  # 1 / scale - scale
        -1.5

    Reference: Kucukelbir, Tran, Ranganath, Gelman & Blei (2017), eq. 7; Roeder, Wu & Duvenaud (2017), eq. 4.
    """

    def without_log_q(sample: Latents, q: Distributions) -> Any:
        return objective(sample, q) + distributions.log_prob(q, sample)

    entropy = distributions.entropy(q)
    samples = distributions.rsample(q, key, num_samples)
    check_differentiable(objective, samples, q)
    return values_at(without_log_q, samples, q).mean() + entropy


def inverse_cdf(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The total derivative along samples that are quantiles of uniform draws.

    Approximates: d/dtheta E_q[f(z; theta)] by the mean of df/dz dz/dtheta + df/dtheta, z = F^-1(u; theta).
    Needs: continuous distributions with a quantile function in closed form; an objective differentiable in the sample.
    Biased: no. Derivatives of any order are correct.

    Arguments, result and errors as for `pathwise`.

    Raises:
        TypeError: a distribution has no quantile function.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(scale):  # z = -scale log(1 - u) for a uniform u
        ...     return vj.inverse_cdf(lambda z, q: z**2, dist.Exponential(1 / scale), jax.random.key(0), 10_000)
        >>> print(f"{jax.jit(jax.grad(estimate))(0.5):.1f}")  # E[z^2] = 2 scale^2
        2.0

    Reference: Devroye (1986), section 2.1; Mohamed, Rosca, Figurnov & Mnih (2020), section 5.1.
    """
    distributions.check_latents(q, num_samples)
    leaves = distributions.named_leaves(q)
    keys = jax.random.split(key, len(leaves))
    draws = [_quantiles(name, leaf, key, num_samples) for (name, leaf), key in zip(leaves, keys, strict=True)]
    samples = distributions.unflatten(q, draws)
    check_differentiable(objective, samples, q)
    return values_at(objective, samples, q).mean()


def _quantiles(name: str, leaf: Any, key: PRNGKey, num_samples: int) -> Array:
    if not has_quantiles(leaf):
        instead = "pathwise" if getattr(leaf, "has_rsample", False) else "score_function"
        raise TypeError(
            f"{name} must be continuous with a quantile function in closed form, got {type(leaf).__name__}: use "
            f"{instead} instead"
        )
    bits = jax.random.bits(key, (num_samples, *uniform_shape(leaf)), jnp.uint32)
    with jax.numpy_rank_promotion("allow"):
        return quantiles(leaf, midpoints(bits))
