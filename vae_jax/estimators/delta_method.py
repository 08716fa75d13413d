"""The objective's second-order Taylor expansion as a control variate, for Gaussian distributions.

T(z) = f(m) + g (z - m) + (z - m)' H (z - m) / 2 about the mean m has the expectation f(m) + tr(H Sigma) / 2. So f - T,
which is small where q is narrow, is averaged over samples, and T's expectation is added. The coefficients are held
fixed in the derivatives: any will do for an exact mean.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from vae_jax import distributions
from vae_jax.estimators.differentiability import check_differentiable
from vae_jax.estimators.gradient_terms import derivative_of, held_at_first, scored
from vae_jax.estimators.objective_values import values_at
from vae_jax.typing import Distributions, Objective, PRNGKey, Scalar


def delta_method_pathwise(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The pathwise estimator with the objective's Taylor expansion as a control variate.

    The gradient's variance vanishes where the objective is quadratic in the sample. The derivatives in whatever the
    objective closes over, and in q through log q(z), get no control variate: use an entropy in closed form.

    Approximates: d/dtheta E_q[f(z)] by the mean of d(f - T)/dz dz/dtheta + df/dtheta, plus d/dtheta E_q[T(z)].
    Needs: Gaussian distributions with independent elements; an objective twice differentiable in the sample, by JAX in
        forward over reverse mode. Costs S + D Hessian-vector products for D elements of the sample: the D one after
        another in O(D) memory, without a Hessian.
    Biased: no. Derivatives of any order are correct.

    Args:
        objective: a function of one sample and `q` that returns a scalar.
        q: a `Normal` with an empty batch shape, `.to_event()` for a vector, or a pytree of independent ones.
        key: consumed.
        num_samples: S, the number of samples that are averaged.

    Returns:
        An unbiased estimate of the objective's mean, whose gradient is the estimate.

    Raises:
        TypeError: a distribution is not Gaussian with independent elements, or the objective has no derivative along
            one.
        ValueError: no samples, a batch shape, or an objective that is not scalar.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(loc):  # E[z^2] = loc^2 + 1
        ...     return vj.delta_method_pathwise(lambda z, q: z**2, dist.Normal(loc, 1.0), jax.random.key(0), 1)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.2)
        >>> print(f"{value:.2f}, gradient {gradient:.2f}")  # one sample is exact where the objective is quadratic
        2.44, gradient 2.40

    Reference: Miller, Foti, D'Amour & Adams (2017); Mohamed, Rosca, Figurnov & Mnih (2020), section 7.
    """
    distributions.check_latents(q, num_samples)
    gaussian = _gaussian(q)
    samples = distributions.rsample(q, key, num_samples)
    check_differentiable(objective, samples, q)
    values = values_at(objective, samples, q)
    expansion = _expand(objective, q, gaussian)
    ends = jax.vmap(lambda sample: ravel_pytree(sample)[0])(samples)
    taylor, slopes = _at(expansion, lax.stop_gradient(ends))
    steps = derivative_of(ends)
    bends = jax.vmap(_bend, in_axes=(None, 0))(expansion.hessian_product, steps)
    along_path = jnp.sum(slopes * steps, axis=1) + bends
    return (values - (taylor + along_path)).mean() + _expectation(expansion, gaussian)


def delta_method_score(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
    """The score-function estimator with the objective's Taylor expansion as a control variate.

    The gradient's variance vanishes where the objective is quadratic in the sample.

    Approximates: d/dtheta E_q[f(z)] by the mean of (f - T)(z) d log q(z; theta)/dtheta, plus d/dtheta E_q[T(z)], plus
        the mean of df for whatever else the objective closes over.
    Needs: as `delta_method_pathwise`; the objective sees samples and `q` with no gradient attached.
    Biased: no. Derivatives of any order are correct.

    Arguments, result and errors as for `delta_method_pathwise`.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> def estimate(loc):  # E[z^2] = loc^2 + 1
        ...     return vj.delta_method_score(lambda z, q: z**2, dist.Normal(loc, 1.0), jax.random.key(0), 1)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.2)
        >>> print(f"{value:.2f}, gradient {gradient:.2f}")  # one sample is exact where the objective is quadratic
        2.44, gradient 2.40

    Reference: Paisley, Blei & Jordan (2012); Mohamed, Rosca, Figurnov & Mnih (2020), section 7.
    """
    distributions.check_latents(q, num_samples)
    gaussian = _gaussian(q)
    samples = distributions.sample(q, key, num_samples)
    values = values_at(objective, samples, held_at_first(q))
    expansion = _expand(objective, q, gaussian)
    taylor, _ = _at(expansion, jax.vmap(lambda sample: ravel_pytree(sample)[0])(samples))
    remainder = values - taylor
    by_score = scored(remainder, jnp.zeros_like(remainder), distributions.log_probs(q, samples))
    return by_score.mean() + _expectation(expansion, gaussian)


class _FlatGaussian(NamedTuple):
    """All latents' elements in one vector."""

    loc: Float[Array, " D"]
    scale: Float[Array, " D"]
    unravel: Any


class _Expansion(NamedTuple):
    """f about a point, with no gradient attached to anything."""

    point: Float[Array, " D"]
    value: Scalar
    slope: Float[Array, " D"]
    hessian_product: Any
    """A pytree, called with a direction: its second result is the product."""
    hessian_diagonal: Float[Array, " D"]


def _expand(objective: Objective, q: Distributions, gaussian: _FlatGaussian) -> _Expansion:
    held = distributions.without_gradient(q)
    point = lax.stop_gradient(gaussian.loc)

    def flat_objective(element: Float[Array, " D"]) -> Any:
        return objective(gaussian.unravel(element), held)

    (value, slope), hessian_product = jax.linearize(jax.value_and_grad(flat_objective), point)

    value, slope, hessian_product = lax.stop_gradient((value, slope, hessian_product))

    def diagonal_element(place: Array) -> Scalar:
        return hessian_product(jnp.zeros_like(point).at[place].set(1))[1][place]

    diagonal = lax.map(diagonal_element, jnp.arange(point.size))
    return _Expansion(point, value, slope, hessian_product, diagonal)


def _at(expansion: _Expansion, ends: Float[Array, "S D"]) -> tuple[Float[Array, " S"], Float[Array, "S D"]]:
    """T and its derivative at S points."""

    def one(end: Float[Array, " D"]) -> tuple[Scalar, Float[Array, " D"]]:
        step = end - expansion.point
        _, bend = expansion.hessian_product(step)
        return expansion.value + step @ (expansion.slope + bend / 2), expansion.slope + bend

    return jax.vmap(one)(ends)


def _expectation(expansion: _Expansion, gaussian: _FlatGaussian) -> Scalar:
    """E_q[T] at the point of expansion, with its derivatives."""
    step = gaussian.loc - expansion.point
    of_loc = expansion.slope @ step + _bend(expansion.hessian_product, step)
    return expansion.value + of_loc + expansion.hessian_diagonal @ gaussian.scale**2 / 2


@jax.custom_jvp
def _bend(hessian_product: Any, step: Float[Array, " D"]) -> Scalar:
    """step' H step / 2 of a step that is zero in value, with derivatives of every order."""
    return jnp.zeros((), step.dtype)


@partial(_bend.defjvp, symbolic_zeros=True)
def _bend_jvp(primals: Any, tangents: Any) -> Any:
    return _bend(*primals), (_product_with_zero(*primals) * tangents[1]).sum()


@jax.custom_jvp
def _product_with_zero(hessian_product: Any, step: Float[Array, " D"]) -> Float[Array, " D"]:
    """H step of a step that is zero in value, with derivatives of every order."""
    return jnp.zeros_like(step)


@partial(_product_with_zero.defjvp, symbolic_zeros=True)
def _product_with_zero_jvp(primals: Any, tangents: Any) -> Any:
    hessian_product, _ = primals
    return _product_with_zero(*primals), hessian_product(tangents[1])[1]


def _gaussian(q: Distributions) -> _FlatGaussian:
    moments = [_moments(name, leaf) for name, leaf in distributions.named_leaves(q)]
    loc, unravel = ravel_pytree(distributions.unflatten(q, [loc for loc, _ in moments]))
    scale, _ = ravel_pytree(distributions.unflatten(q, [scale for _, scale in moments]))
    return _FlatGaussian(loc, scale, unravel)


def _moments(name: str, leaf: Any) -> tuple[Array, Array]:
    base = distributions.base_distribution(leaf)
    if not isinstance(base, dist.Normal):
        instead = "pathwise" if getattr(leaf, "has_rsample", False) else "score_function"
        raise TypeError(
            f"{name} must be a Normal with independent elements, got {type(base).__name__}: use {instead} instead"
        )
    shape = leaf.batch_shape + leaf.event_shape
    # The draws' type, which may be wider than the parameters'.
    dtype = jnp.result_type(base.loc, base.scale, jnp.result_type(float))
    loc, scale = (jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x in (base.loc, base.scale))
    return loc, scale
