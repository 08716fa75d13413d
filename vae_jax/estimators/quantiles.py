"""Draws as quantiles of uniform variables, differentiable in the distribution's parameters."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, UInt32

NUMERICAL_QUANTILES = (dist.Beta, dist.Gamma, dist.StudentT)
"""Families whose quantile function is inverted numerically, which JAX does not differentiate."""


def has_quantiles(q: Any) -> bool:
    """Whether a distribution is continuous and has a quantile function in closed form, alone or transformed."""
    match q:
        case dist.Independent() | dist.TransformedDistribution():
            return has_quantiles(q.base_dist)
        case dist.ExpandedDistribution():
            return q.base_dist.event_shape == () and has_quantiles(q.base_dist)
        case dist.MultivariateNormal():
            return True
    discrete = getattr(getattr(q, "support", None), "is_discrete", False)
    icdf = getattr(type(q), "icdf", None)
    families = (q, getattr(q, "base_dist", None))
    numerical = any(isinstance(family, NUMERICAL_QUANTILES) for family in families)
    return icdf not in (None, dist.Distribution.icdf) and not discrete and not numerical


def uniform_shape(q: Any) -> tuple[int, ...]:
    """Shape of the uniform variables that one draw of q is made of."""
    match q:
        case dist.Independent() | dist.TransformedDistribution():
            return uniform_shape(q.base_dist)
    return tuple(q.batch_shape) + tuple(getattr(q, "event_shape", ()))


def quantiles(q: Any, uniforms: Float[Array, "S ..."]) -> Array:
    """Draws of q from uniform variables, differentiable in its parameters."""
    match q:
        case dist.Independent() | dist.ExpandedDistribution():
            return quantiles(q.base_dist, uniforms)
        case dist.TransformedDistribution():
            return transformed(q, quantiles(q.base_dist, uniforms))
        case dist.MultivariateNormal():
            scale_tril: Any = q.scale_tril
            return jnp.asarray(q.loc) + (scale_tril @ ndtri(uniforms)[..., None])[..., 0]
    return q.icdf(uniforms)


def transformed(q: Any, draws: Array) -> Array:
    """Draws of the base of q as draws of q."""
    for transform in q.transforms:
        draws = transform(draws)
    return draws


def midpoints(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Random bits to numbers within (0, 1), at the middle of the cells that the type resolves."""
    dtype = jnp.result_type(float)
    # One bit to spare, so that (1 + u) / 2, which half-normals take a quantile of, is not rounded to 1.
    resolved = min(32, jnp.finfo(dtype).nmant - 1)
    return ((bits >> (32 - resolved)).astype(dtype) + 0.5) * 2.0**-resolved
