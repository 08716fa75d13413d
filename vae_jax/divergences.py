"""Divergences between distributions in closed form (nats).

All are exact near equality: they are sums of terms that each go to zero there, so no digits cancel. A scale that is not
positive gives NaN.
"""

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from vae_jax.typing import Scalar


def kl_diagonal_gaussian(
    loc_q: Float[Array, "*D"],
    scale_q: Float[Array, "*D"],
    loc_p: Float[Array, "*D"],
    scale_p: Float[Array, "*D"],
) -> Scalar:
    """KL(q || p) of Gaussians with diagonal covariance, summed over all axes.

    sum_d 1/2 [r^2 - 1 - log r^2 + ((loc_q - loc_p) / scale_p)^2] with r = scale_q / scale_p.

    Reference: Kingma & Welling (2014), appendix B, for a standard normal p.
    """
    shift = (loc_q - loc_p) / scale_p
    excess = _square_excess(scale_q, scale_p)
    divergence = (_minus_log1p(excess) + shift**2).sum() / 2
    valid = jnp.all(scale_q > 0) & jnp.all(scale_p > 0)
    return jnp.where(valid, divergence, jnp.nan)


def kl_standard_normal(loc: Float[Array, "*D"], scale: Float[Array, "*D"]) -> Scalar:
    """KL(q || Normal(0, I)) of a Gaussian with diagonal covariance, summed over all axes.

    Reference: Kingma & Welling (2014), appendix B.
    """
    return kl_diagonal_gaussian(loc, scale, jnp.zeros_like(loc), jnp.ones_like(scale))


def kl_gaussian(
    loc_q: Float[Array, " D"],
    scale_tril_q: Float[Array, "D D"],
    loc_p: Float[Array, " D"],
    scale_tril_p: Float[Array, "D D"],
) -> Scalar:
    """KL(q || p) of Gaussians with the Cholesky factors of their covariances.

    With A = L_p^-1 L_q, lower triangular: 1/2 [sum_d (A_dd^2 - 1 - log A_dd^2) + sum_{d>e} A_de^2 + |L_p^-1 (loc_q -
    loc_p)|^2]. Only the lower triangles are read.
    """
    scale_tril_q, scale_tril_p = jnp.tril(scale_tril_q), jnp.tril(scale_tril_p)
    scale_q, scale_p = jnp.diagonal(scale_tril_q), jnp.diagonal(scale_tril_p)
    # Off the diagonal A equals L_p^-1 (L_q - L_p), which keeps its digits where the two are close.
    relative = solve_triangular(scale_tril_p, scale_tril_q - scale_tril_p, lower=True)
    shift = solve_triangular(scale_tril_p, (loc_q - loc_p)[:, None], lower=True)
    excess = _square_excess(scale_q, scale_p)
    divergence = (_minus_log1p(excess).sum() + (jnp.tril(relative, -1) ** 2).sum() + (shift**2).sum()) / 2
    valid = jnp.all(scale_q > 0) & jnp.all(scale_p > 0)
    return jnp.where(valid, divergence, jnp.nan)


def _square_excess(scale_q: Float[Array, "*D"], scale_p: Float[Array, "*D"]) -> Float[Array, "*D"]:
    """(scale_q / scale_p)^2 - 1, exact near equality because the difference of close numbers is."""
    return (scale_q - scale_p) / scale_p * ((scale_q + scale_p) / scale_p)


def _minus_log1p(x: Float[Array, "*D"]) -> Float[Array, "*D"]:
    """x - log(1 + x), about x^2/2 near zero.

    With y = x / (2 + x), log1p(x) = 2 atanh(y) and x - 2y = xy, so that the difference is xy - 2 (y^3/3 + y^5/5 + ...):
    the series stands in where the plain difference would cancel.
    """
    near = jnp.abs(x) < 0.25
    # Each branch sees only arguments it is finite at, so that the gradient of the other is finite too.
    y = jnp.where(near, x, 0) / (2 + jnp.where(near, x, 0))
    tail = jnp.zeros_like(y)
    for power in range(21, 1, -2):
        tail = (tail + 1 / power) * y**2
    series = x * y - 2 * y * tail
    plain = jnp.where(near, 1, x) - lax.log1p(jnp.where(near, 1, x).astype(x.dtype))
    return jnp.where(near, series, plain)
