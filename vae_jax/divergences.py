"""Divergences between distributions in closed form (nats).

All are exact near equality: they are sums of terms that each go to zero there, so no digits cancel. A scale that is not
positive gives NaN.
"""

import jax.numpy as jnp
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
    return _valid(scale_q, scale_p) * (_log_remainder(scale_q, scale_p) + shift**2).sum() / 2


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
    twice = _log_remainder(scale_q, scale_p).sum() + (jnp.tril(relative, -1) ** 2).sum() + (shift**2).sum()
    return _valid(scale_q, scale_p) * twice / 2


def _valid(scale_q: Float[Array, "*D"], scale_p: Float[Array, "*D"]) -> Scalar:
    """1, or NaN where a scale is not positive: as a factor, so that the gradient is NaN too."""
    return jnp.where(jnp.all(scale_q > 0) & jnp.all(scale_p > 0), 1, jnp.nan).astype(scale_q.dtype)


def _log_remainder(scale_q: Float[Array, "*D"], scale_p: Float[Array, "*D"]) -> Float[Array, "*D"]:
    """r^2 - 1 - log r^2 with r = scale_q / scale_p, about 2 (r - 1)^2 near r = 1.

    Near there x = r^2 - 1 is taken from the difference of the scales, which is exact. With y = x / (2 + x), log(1 + x)
    = 2 atanh(y) and x - 2y = xy, so that the remainder is xy - 2 (y^3/3 + y^5/5 + ...) and nothing cancels.
    """
    x = (scale_q - scale_p) / scale_p * ((scale_q + scale_p) / scale_p)
    near = jnp.abs(x) < 0.25
    # The series sees only arguments it converges at, so that its gradient is finite where it is not used.
    x_near = jnp.where(near, x, 0)
    y = x_near / (2 + x_near)
    tail = jnp.zeros_like(y)
    for power in range(21, 1, -2):
        tail = (tail + 1 / power) * y**2
    return jnp.where(near, x_near * y - 2 * y * tail, x - 2 * jnp.log(scale_q / scale_p))
