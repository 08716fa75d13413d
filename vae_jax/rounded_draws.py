"""Draws that their dtype rounds to the edge of the support, where a density may be infinite.

A Beta(0.05, 0.05) has a fifth of its mass within 6e-8 of 1, where float32 holds no number. Its draws there are moved to
the nearest number that is left, and a density with a power of 1 - z is evaluated at the wrong place.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import betaln, gammaln
from jaxtyping import Array, Bool
from numpyro.distributions import constraints

from vae_jax import distributions
from vae_jax.typing import Distributions, Latents, Scalar

LARGEST_LOSS = 0.01
"""Nats by which rounded draws may move E[log |z - edge|] before an expectation under them is called invalid."""


def rounding_loss(q: Distributions) -> Scalar:
    """How much rounding draws to the edges of their supports moves E[log |z - edge|], summed over edges (nats).

    A density with a power of |z - edge| has its expected log moved by so much times the power. It is computed from the
    parameters of Gamma, Beta, Dirichlet, Weibull and Kumaraswamy distributions; others count nothing.

    Args:
        q: a distribution or a pytree of independent ones.

    Example:
        >>> import numpyro.distributions as dist
        >>> from vae_jax.rounded_draws import rounding_loss
        >>> [f"{rounding_loss(dist.Beta(a, a)):.1e}" for a in (0.05, 0.5, 5.0)]
        ['4.7e+00', '4.4e-04', '6.1e-34']
    """
    return sum(
        (_loss(distributions.base_distribution(leaf)) for _, leaf in distributions.named_leaves(q)), jnp.zeros(())
    )


def has_powers(q: Distributions) -> bool:
    """Whether a density in `q` is a power of the distance to an edge, so that rounding may invalidate expectations."""
    return any(
        _tails_of(distributions.base_distribution(leaf)) is not None for _, leaf in distributions.named_leaves(q)
    )


def resolved(q: Distributions, value: Any) -> Any:
    """A value, with its gradient, or NaN where draws of `q` are too often rounded to an edge of the support."""
    if not has_powers(q):
        return value
    loss = lax.stop_gradient(rounding_loss(q))
    return value * jnp.where(loss > LARGEST_LOSS, jnp.nan, 1).astype(jnp.result_type(value))


def _loss(leaf: Any) -> Scalar:
    """The mass beyond each edge times the mean of what log |z - edge| loses there, which is one over its power."""
    tails = _tails_of(leaf)
    if tails is None:
        return jnp.zeros(())
    return sum((jnp.sum(jnp.exp(log_mass) / power) for log_mass, power in tails(leaf)), jnp.zeros(()))


def _tails_of(leaf: Any) -> Callable[[Any], Any] | None:
    return next((tails for family, tails in _TAILS.items() if isinstance(leaf, family)), None)


def _limits(values: Any) -> tuple[Any, Any]:
    """Logs of the smallest number above zero and of the distance from 1 to the next number below."""
    precision = jnp.finfo(jnp.result_type(values, float))
    return jnp.log(precision.tiny), jnp.log(precision.eps)


def _gamma(leaf: Any) -> Any:
    concentration, rate = jnp.broadcast_arrays(leaf.concentration, leaf.rate)
    smallest, _ = _limits(concentration)
    yield concentration * (smallest + jnp.log(rate)) - gammaln(concentration + 1), concentration


def _beta(leaf: Any) -> Any:
    one, zero = jnp.broadcast_arrays(leaf.concentration1, leaf.concentration0)
    smallest, step = _limits(one)
    for power, distance in ((one, smallest), (zero, step)):
        yield power * distance - jnp.log(power) - betaln(one, zero), power


def _dirichlet(leaf: Any) -> Any:
    concentration = jnp.asarray(leaf.concentration)
    others = concentration.sum(axis=-1, keepdims=True) - concentration
    smallest, _ = _limits(concentration)
    yield concentration * smallest - jnp.log(concentration) - betaln(concentration, others), concentration


def _weibull(leaf: Any) -> Any:
    scale, power = jnp.broadcast_arrays(leaf.scale, leaf.concentration)
    smallest, _ = _limits(power)
    yield power * (smallest - jnp.log(scale)), power


def _kumaraswamy(leaf: Any) -> Any:
    one, zero = jnp.broadcast_arrays(leaf.concentration1, leaf.concentration0)
    smallest, step = _limits(one)
    yield jnp.log(zero) + one * smallest, one
    yield zero * (jnp.log(one) + step), zero


_TAILS: Mapping[type, Callable[[Any], Any]] = {
    dist.Gamma: _gamma,
    dist.Beta: _beta,
    dist.Dirichlet: _dirichlet,
    dist.Weibull: _weibull,
    dist.Kumaraswamy: _kumaraswamy,
}
"""The log mass beyond each edge, and the power of |z - edge| that it grows with, by family."""


def on_edge(q: Distributions, samples: Latents) -> Bool[Array, " S"]:
    """Whether each of S samples lies on the edge of the support of `q`, or as near as the dtype goes.

    Args:
        q: a distribution or a pytree of independent ones. One that does not tell its support has no edge.
        samples: a pytree with the structure of `q` and leaves [S, ...].

    Returns:
        One truth value for each sample.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> from vae_jax import distributions
        >>> from vae_jax.rounded_draws import on_edge
        >>> q = dist.Beta(0.05, 0.05)
        >>> print(f"{on_edge(q, distributions.sample(q, jax.random.key(0), 10_000)).mean():.1f}")
        0.2
    """
    leaves = [leaf for _, leaf in distributions.named_leaves(q)]
    pieces = jax.tree.structure(q, is_leaf=distributions.is_distribution).flatten_up_to(samples)
    pairs = [pair for leaf, piece in zip(leaves, pieces, strict=True) for pair in _with_supports(leaf, piece)]
    return jnp.any(jnp.stack([_at_an_edge(support, values) for support, values in pairs]), axis=0)


def _with_supports(leaf: Any, values: Any) -> list[tuple[Any, Array]]:
    """The arrays of one distribution's samples, each with its support."""
    parts = jax.tree.leaves(values)
    one = getattr(leaf, "support", None)
    supports = getattr(leaf, "supports", [one] * len(parts))
    return list(zip(supports, parts, strict=True))


def _at_an_edge(support: Any, values: Array) -> Bool[Array, " S"]:
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return jnp.zeros(values.shape[0], bool)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    precision = jnp.finfo(values.dtype)
    lower = 0.0 if isinstance(support, type(constraints.simplex)) else getattr(support, "lower_bound", None)
    upper = getattr(support, "upper_bound", None)
    near = jnp.zeros(values.shape, bool)
    with jax.numpy_rank_promotion("allow"):
        if lower is not None:
            near |= values <= lower + precision.tiny
        if upper is not None:
            width = jnp.abs(upper) if lower is None else jnp.maximum(jnp.abs(upper), upper - lower)
            near |= values >= upper - jnp.maximum(precision.eps * width, precision.tiny)
    return near.reshape(values.shape[0], -1).any(axis=1)
