"""Measure-valued derivatives: the density's derivative as a difference of two densities that can be drawn from.

For a parameter theta of a distribution, d q(z; theta) / d theta = constant (positive(z) - negative(z)) with two
densities and a constant, so that d E_q[f] / d theta = constant (E_positive[f] - E_negative[f]) for any f. It need not
be differentiable.

Reference: Pflug (1989); Mohamed, Rosca, Figurnov & Mnih (2020), section 6 and table 1.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Num

from vae_jax import distributions
from vae_jax.estimators.gradient_terms import with_first_derivative
from vae_jax.estimators.objective_values import values_at
from vae_jax.estimators.weak_derivatives import COUPLED, INDEPENDENT, SideDraws, WeakDerivative, weak_derivatives
from vae_jax.typing import Distributions, Latents, Objective, PRNGKey, Scalar


def measure_valued(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The measure-valued derivative with its two sides drawn independently.

    Approximates: d/dtheta_p E_q[f(z)] by constant_p mean[f(z+) - f(z-)], where z+ and z- differ from z in the one
        coordinate that theta_p shapes, drawn from its positive and its negative density.
    Needs: latents that are Normal, Exponential, Gamma (its rate), Poisson, Bernoulli or categorical, scalar or vectors
        of independent coordinates. The objective need not be differentiable.
    Biased: no. First derivatives only: a second one in q's parameters is refused. For P elements of parameters the
        objective is evaluated (1 + 2 P) S times.

    Args:
        objective: a function of one sample and `q` that returns a scalar; it sees both with no gradient attached.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, the number of samples that are averaged, of each side.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Raises:
        TypeError: a latent has no known decomposition; or, when it is differentiated, a Gamma's concentration.
        ValueError: no samples, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(logit):  # E[(2 b)^2] = 4 sigmoid(logit)
        ...     q = dist.Bernoulli(logits=logit)
        ...     return vj.measure_valued(lambda b, q: (2.0 * b) ** 2, q, jax.random.key(0), 10_000)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(0.0)
        >>> print(f"{value:.1f}, gradient {gradient:.1f}")
        2.0, gradient 1.0

    Reference: Mohamed, Rosca, Figurnov & Mnih (2020), section 6.
    """
    return _measure_valued(INDEPENDENT, objective, q, key, num_samples)


def coupled_measure_valued(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The measure-valued derivative with its two sides drawn together.

    For a smooth objective its variance is far smaller than that of `measure_valued`.

    A Normal's loc steps equally far up and down; for its scale the normal draw is the double-sided Maxwell one times a
    uniform share; a Gamma's negative side is its positive one plus an exponential step; a Poisson's sides are the same
    count with and without one more. A Bernoulli's and a categorical's positive sides are single outcomes, which leaves
    nothing to couple.

    Everything else as for `measure_valued`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(rate):  # E[n^2] = rate + rate^2
        ...     def square(n, q):
        ...         return 1.0 * n**2
        ...     return vj.coupled_measure_valued(square, dist.Poisson(rate), jax.random.key(0), 10_000)
        >>> print(f"{jax.jit(jax.grad(estimate))(1.5):.1f}")
        4.0

    Reference: Mohamed, Rosca, Figurnov & Mnih (2020), section 7.2.
    """
    return _measure_valued(COUPLED, objective, q, key, num_samples)


def _measure_valued(draws: SideDraws, objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    sample_key, sides_key = jax.random.split(key)
    samples = distributions.sample(q, sample_key, num_samples)
    held = distributions.without_gradient(q)
    value = values_at(objective, samples, held).mean()
    gradients, parameters = [], []
    for number, derivative in weak_derivatives(draws, q, sides_key, num_samples):
        effects = _effects(partial(values_at, objective, q=held), samples, number, derivative)
        gradients.append(derivative.constant * effects)
        parameters.append(derivative.parameter)
    return with_first_derivative(value, gradients, parameters)


def _effects(
    values: Callable[[Latents], Float[Array, " S"]], samples: Latents, number: int, derivative: WeakDerivative
) -> Float[Array, " P"]:
    """mean[f(z+) - f(z-)] for each element of a parameter of the leaf with that number, one element after another."""
    leaves, structure = jax.tree.flatten(samples)

    def mean_with(draws: Num[Array, "S ..."], coordinate: Int[Array, ""]) -> Scalar:
        changed = leaves.copy()
        unit = draws.shape[1:]
        by_coordinate = leaves[number].reshape(len(draws), -1, *unit)
        changed[number] = by_coordinate.at[:, coordinate].set(draws).reshape(leaves[number].shape)
        return values(structure.unflatten(changed)).mean()

    def effect(sides: tuple[Array, Array, Array]) -> Scalar:
        positive, negative, coordinate = lax.stop_gradient(sides)
        return mean_with(positive, coordinate) - mean_with(negative, coordinate)

    positive, negative = (
        jnp.moveaxis(side, 1, 0).astype(leaves[number].dtype) for side in (derivative.positive, derivative.negative)
    )
    return lax.map(effect, (positive, negative, jnp.asarray(derivative.coordinate)))
