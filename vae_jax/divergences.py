"""Divergences between distributions in closed form (nats).

All are exact near equality: they are sums of terms that each go to zero there, so no digits cancel. A scale that is not
positive gives NaN, and so does an alpha outside [0, 1] that is an array.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from vae_jax.typing import Scalar

Diagonal: TypeAlias = Float[Array, "*D"]
"""Locs, or scales, of independent Gaussians."""

Alpha: TypeAlias = Scalar | float
"""A weight between two distributions, in [0, 1]; an array of it may be traced."""


def kl_diagonal_gaussian(loc_q: Diagonal, scale_q: Diagonal, loc_p: Diagonal, scale_p: Diagonal) -> Scalar:
    """KL(q || p) of Gaussians with diagonal covariance, summed over all axes.

    It is sum_d 1/2 [r^2 - 1 - log r^2 + ((loc_q - loc_p) / scale_p)^2] with r = scale_q / scale_p.

    Args:
        loc_q, scale_q: locations and standard deviations of q, arrays of one shape.
        loc_p, scale_p: those of p, of the same shape.

    Returns:
        The divergence, a scalar (nats). NaN where a scale is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> loc_q, scale_q = jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0])
        >>> loc_p, scale_p = jnp.zeros(2), jnp.ones(2)
        >>> print(f"{vj.kl_diagonal_gaussian(loc_q, scale_q, loc_p, scale_p):.3f}")  # 1/2 + (4 - 1 - log 4) / 2
        1.307

    Reference: Kingma & Welling (2014), appendix B, for a standard normal p.
    """
    shift = (loc_q - loc_p) / scale_p
    return _valid(scale_q, scale_p) * (_log_remainder(scale_q, scale_p) + shift**2).sum() / 2


def kl_standard_normal(loc: Diagonal, scale: Diagonal) -> Scalar:
    """KL(q || Normal(0, I)) of a Gaussian with diagonal covariance, summed over all axes.

    Args:
        loc, scale: locations and standard deviations of q, arrays of one shape.

    Returns:
        The divergence, a scalar (nats). NaN where a scale is not positive.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> loc, scale = jnp.array([1.0, 2.0]), jnp.ones(2)
        >>> print(f"{vj.kl_standard_normal(loc, scale):.2f}")  # half the sum of the squares of loc
        2.50
        >>> jax.grad(vj.kl_standard_normal)(loc, scale).tolist()
        [1.0, 2.0]

    Reference: Kingma & Welling (2014), appendix B.
    """
    return kl_diagonal_gaussian(loc, scale, jnp.zeros_like(loc), jnp.ones_like(scale))


def kl_standard_normal_log_scale(loc: Diagonal, log_scale: Diagonal) -> Scalar:
    """KL(q || Normal(0, I)) of a Gaussian from the log of its scale, summed over all axes.

    The log keeps the digits of a scale near 1, which `kl_standard_normal` gets rounded.

    Args:
        loc, log_scale: locations of q, and the logs of its standard deviations, arrays of one shape.

    Returns:
        The divergence, a scalar (nats).

    Example:
        >>> import jax.numpy as jnp
        >>> from vae_jax.divergences import kl_standard_normal_log_scale
        >>> kl = kl_standard_normal_log_scale(jnp.zeros(1), jnp.array([1e-6]))  # about log_scale^2
        >>> print(f"{kl:.2e}")
        1.00e-12

    Reference: Kingma & Welling (2014), appendix B.
    """
    return (_exponential_remainder(2 * log_scale) + loc**2).sum() / 2


def kl_gaussian(
    loc_q: Float[Array, " D"],
    scale_tril_q: Float[Array, "D D"],
    loc_p: Float[Array, " D"],
    scale_tril_p: Float[Array, "D D"],
) -> Scalar:
    """KL(q || p) of Gaussians with the Cholesky factors of their covariances.

    With A = L_p^-1 L_q, lower triangular, it is 1/2 [sum_d (A_dd^2 - 1 - log A_dd^2) + sum_{d>e} A_de^2 +
    |L_p^-1 (loc_q - loc_p)|^2]. Only the lower triangles are read.

    Args:
        loc_q, scale_tril_q: the mean of q [D], and the lower Cholesky factor of its covariance [D, D].
        loc_p, scale_tril_p: those of p.

    Returns:
        The divergence, a scalar (nats). NaN where a diagonal element of a factor is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> covariance = jnp.array([[1.0, 0.8], [0.8, 1.0]])
        >>> standard = jnp.zeros(2), jnp.eye(2)
        >>> kl = vj.kl_gaussian(jnp.zeros(2), jnp.linalg.cholesky(covariance), *standard)
        >>> print(f"{kl:.3f}")  # minus half the log of the determinant, 1 - 0.8^2
        0.511
    """
    scale_tril_q, scale_tril_p = jnp.tril(scale_tril_q), jnp.tril(scale_tril_p)
    scale_q, scale_p = jnp.diagonal(scale_tril_q), jnp.diagonal(scale_tril_p)
    # Off the diagonal A equals L_p^-1 (L_q - L_p), which keeps its digits where the two are close.
    relative = solve_triangular(scale_tril_p, scale_tril_q - scale_tril_p, lower=True)
    shift = solve_triangular(scale_tril_p, (loc_q - loc_p)[:, None], lower=True)
    twice = _log_remainder(scale_q, scale_p).sum() + (jnp.tril(relative, -1) ** 2).sum() + (shift**2).sum()
    return _valid(scale_q, scale_p) * twice / 2


def geometric_mean_gaussian(
    loc_q: Diagonal, scale_q: Diagonal, loc_p: Diagonal, scale_p: Diagonal, *, alpha: Alpha
) -> tuple[Diagonal, Diagonal]:
    """Loc and scale of the Gaussian that is proportional to q^(1 - alpha) p^alpha.

    Its precision is (1 - alpha) / scale_q^2 + alpha / scale_p^2, and its loc the mean of both locs by their shares of
    it.

    Args:
        loc_q, scale_q: locations and standard deviations of q, arrays of one shape.
        loc_p, scale_p: those of p, of the same shape.
        alpha: the weight of p, in [0, 1]: the mean is q at 0 and p at 1.

    Returns:
        The locations and the standard deviations, arrays of the given shape.

    Raises:
        ValueError: `alpha` is a number outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> q, p = (jnp.array([0.0]), jnp.array([1.0])), (jnp.array([2.0]), jnp.array([1.0]))
        >>> loc, scale = vj.geometric_mean_gaussian(*q, *p, alpha=0.25)
        >>> print(f"{loc[0]:.2f}, {scale[0]:.2f}")
        0.50, 1.00

    Reference: Nielsen (2019).
    """
    valid = _valid(scale_q, scale_p) * _valid_alpha("alpha", alpha)
    powers, log_square = (1 - alpha, alpha), 2 * _log_ratio(scale_q, scale_p)
    share = _share(*powers, log_square)
    scale = scale_q * jnp.exp(-_log_precision(*powers, log_square) / 2)
    return valid * ((1 - share) * loc_q + share * loc_p), valid * scale


def geometric_jensen_shannon(
    loc_q: Diagonal,
    scale_q: Diagonal,
    loc_p: Diagonal,
    scale_p: Diagonal,
    *,
    alpha: Alpha,
    middle_alpha: Alpha | None = None,
) -> Scalar:
    """Geometric Jensen-Shannon divergence (1 - alpha) KL(q || m) + alpha KL(p || m), summed over all axes.

    The Gaussian m is the geometric mean of q and p. The divergence is no part of a bound on the log likelihood.

    Args:
        loc_q, scale_q: locations and standard deviations of q, arrays of one shape.
        loc_p, scale_p: those of p, of the same shape.
        alpha: the weight of p, in [0, 1]. It may be traced, and the gradient in it is correct at both ends too.
        middle_alpha: the alpha of m. By default it is `alpha`, so that the divergence is 0 at both ends. With
            1 - `alpha` the divergence runs from KL(q || p) at 0 to KL(p || q) at 1.

    Returns:
        The divergence, a scalar (nats).

    Raises:
        ValueError: an alpha is a number outside [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> q, p = (jnp.array([0.0]), jnp.array([1.0])), (jnp.array([2.0]), jnp.array([1.0]))
        >>> print(f"{vj.geometric_jensen_shannon(*q, *p, alpha=0.5):.2f}")  # alpha (1 - alpha) 2^2 / 2
        0.50
        >>> at_the_end = vj.geometric_jensen_shannon(*q, *p, alpha=1.0, middle_alpha=0.0)
        >>> print(f"{at_the_end:.2f}, {vj.kl_diagonal_gaussian(*p, *q):.2f}")
        2.00, 2.00

    Reference: Nielsen (2019); Deasy, Simidjievski & Lio (2020) for 1 - alpha in the middle.
    """
    return _skewed(_twice_kl_to_mean, (loc_q, scale_q, loc_p, scale_p), alpha, middle_alpha)


def dual_geometric_jensen_shannon(
    loc_q: Diagonal,
    scale_q: Diagonal,
    loc_p: Diagonal,
    scale_p: Diagonal,
    *,
    alpha: Alpha,
    middle_alpha: Alpha | None = None,
) -> Scalar:
    """Dual geometric Jensen-Shannon divergence (1 - alpha) KL(m || q) + alpha KL(m || p), summed over all axes.

    The Gaussian m is the geometric mean of q and p. With the default middle the divergence is the skewed Bhattacharyya
    distance -log int q^(1 - alpha) p^alpha. With 1 - `alpha` it runs from KL(p || q) at 0 to KL(q || p) at 1.
    Arguments, result and errors as for `geometric_jensen_shannon`.

    Example:
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> q, p = (jnp.array([0.0]), jnp.array([1.0])), (jnp.array([2.0]), jnp.array([1.0]))
        >>> print(f"{vj.dual_geometric_jensen_shannon(*q, *p, alpha=0.5):.2f}")  # alpha (1 - alpha) 2^2 / 2
        0.50
        >>> at_the_end = vj.dual_geometric_jensen_shannon(*q, *p, alpha=1.0, middle_alpha=0.0)
        >>> print(f"{at_the_end:.2f}, {vj.kl_diagonal_gaussian(*q, *p):.2f}")
        2.00, 2.00

    Reference: Nielsen (2019); Deasy, Simidjievski & Lio (2020) for 1 - alpha in the middle.
    """
    return _skewed(_twice_kl_from_mean, (loc_q, scale_q, loc_p, scale_p), alpha, middle_alpha)


def geometric_jensen_shannon_standard_normal(
    loc: Diagonal, log_scale: Diagonal, *, alpha: Alpha, middle_alpha: Alpha | None = None
) -> Scalar:
    """`geometric_jensen_shannon` of q and p = Normal(0, I), from the log of q's scale.

    It is finite where KL(p || q) is. `loc` and `log_scale` are the locations of q and the logs of its standard
    deviations, arrays of one shape. Other arguments, result and errors as for `geometric_jensen_shannon`.

    Example:
        >>> import jax.numpy as jnp
        >>> from vae_jax.divergences import geometric_jensen_shannon_standard_normal
        >>> loc, log_scale = jnp.array([2.0]), jnp.array([0.0])
        >>> print(f"{geometric_jensen_shannon_standard_normal(loc, log_scale, alpha=0.5):.2f}")
        0.50
    """
    return _skewed_from_standard_normal(_twice_kl_to_mean, loc, log_scale, alpha, middle_alpha)


def dual_geometric_jensen_shannon_standard_normal(
    loc: Diagonal, log_scale: Diagonal, *, alpha: Alpha, middle_alpha: Alpha | None = None
) -> Scalar:
    """`dual_geometric_jensen_shannon` of q and p = Normal(0, I), from the log of q's scale.

    `loc` and `log_scale` are the locations of q and the logs of its standard deviations, arrays of one shape. Other
    arguments, result and errors as for `geometric_jensen_shannon`.

    Example:
        >>> import jax.numpy as jnp
        >>> from vae_jax.divergences import dual_geometric_jensen_shannon_standard_normal
        >>> loc, log_scale = jnp.array([2.0]), jnp.array([0.0])
        >>> print(f"{dual_geometric_jensen_shannon_standard_normal(loc, log_scale, alpha=0.5):.2f}")
        0.50
    """
    return _skewed_from_standard_normal(_twice_kl_from_mean, loc, log_scale, alpha, middle_alpha)


def _skewed_from_standard_normal(
    twice_kl: Callable[..., Array], loc: Diagonal, log_scale: Diagonal, alpha: Alpha, middle: Alpha | None
) -> Scalar:
    return _skewed_by_latent(twice_kl, (log_scale, loc * jnp.exp(-log_scale), loc), alpha, middle).sum()


def _skewed(twice_kl: Callable[..., Array], gaussians: tuple[Array, ...], alpha: Alpha, middle: Alpha | None) -> Scalar:
    loc_q, scale_q, loc_p, scale_p = gaussians
    shifts = (loc_q - loc_p) / scale_q, (loc_q - loc_p) / scale_p
    by_latent = _skewed_by_latent(twice_kl, (_log_ratio(scale_q, scale_p), *shifts), alpha, middle)
    return _valid(scale_q, scale_p) * by_latent.sum()


def _skewed_by_latent(
    twice_kl: Callable[..., Array], distance: tuple[Diagonal, ...], alpha: Alpha, middle: Alpha | None
) -> Diagonal:
    """1 - alpha times the divergence between q and the mean, and alpha times that between p and the mean.

    `distance` is the log of the scales' ratio, and the distance of the locs in units of q's scale and of p's.
    """
    valid = _valid_alpha("alpha", alpha)
    if middle is None:
        middle = alpha
    else:
        valid = valid * _valid_alpha("middle_alpha", middle)
    log_ratio, shift_q, shift_p = distance
    of_q = twice_kl((1 - alpha) / 2, 1 - middle, middle, log_ratio, shift_q, shift_p)
    of_p = twice_kl(alpha / 2, middle, 1 - middle, -log_ratio, shift_p, shift_q)
    return valid * (of_q + of_p)


def _twice_kl_to_mean(
    weight: Alpha, own: Alpha, other: Alpha, log_ratio: Diagonal, own_shift: Diagonal, other_shift: Diagonal
) -> Diagonal:
    """2 weight KL(a || m) of each dimension, m the mean of a to the power `own` and of b to the power `other`.

    `log_ratio` is that of a's scale to b's; the shifts are the distance of their locs in units of either scale.
    """
    # From the left, for the weight may be 0 where the shift's square overflows.
    distance = weight * other * _share(own, other, 2 * log_ratio) * other_shift * other_shift
    return _weighted_remainder(weight, _log_precision(own, other, 2 * log_ratio)) + distance


def _twice_kl_from_mean(
    weight: Alpha, own: Alpha, other: Alpha, log_ratio: Diagonal, own_shift: Diagonal, other_shift: Diagonal
) -> Diagonal:
    """2 weight KL(m || a) of each dimension, for the arguments of `_twice_kl_to_mean`."""
    shift = _share(own, other, 2 * log_ratio) * own_shift
    return _weighted_remainder(weight, -_log_precision(own, other, 2 * log_ratio)) + weight * shift * shift


def _weighted_remainder(weight: Alpha, log: Diagonal) -> Diagonal:
    """weight (x - log(1 + x)) of log(1 + x)."""
    # Either factor stays below the largest float of its type, so that a weight of 0 meets no infinity.
    largest = 0.9 * math.log(jnp.finfo(log.dtype).max)
    inside = jnp.minimum(log, largest)
    excess = jnp.expm1(inside)
    far = weight * excess * jnp.exp(jnp.minimum(log - inside, largest)) - weight * log
    return jnp.where(jnp.abs(excess) < NEAR, weight * _near_remainder(excess), far)


# The chain rule through plain formulas would overflow, or lose its digits, where these derivatives do not. `own` is
# 1 - other with the digits of a small one, so that other's derivative is that of both.


@jax.custom_jvp
def _log_precision(own: Alpha, other: Alpha, log_square: Diagonal) -> Diagonal:
    """log(own + other r^2) of log r^2: of the geometric mean's precision over that of the first Gaussian."""
    excess = other * jnp.expm1(log_square)
    far = jnp.logaddexp(jnp.log(own), jnp.log(other) + log_square)
    return jnp.where(jnp.abs(excess) < NEAR, jnp.log1p(excess), far)


@jax.custom_jvp
def _share(own: Alpha, other: Alpha, log_square: Diagonal) -> Diagonal:
    """other r^2 / (own + other r^2) of log r^2: the second Gaussian's share of that precision."""
    return jnp.exp(jnp.log(other) + log_square - _log_precision(own, other, log_square))


def _log_precision_in_other(own: Alpha, other: Alpha, log_square: Diagonal) -> Diagonal:
    """(r^2 - 1) / (own + other r^2)."""
    log = _log_precision(own, other, log_square)
    grown = -jnp.expm1(-log_square) * _finite_exp(log_square - log)
    return jnp.where(log_square > 0, grown, jnp.expm1(log_square) * _finite_exp(-log))


def _share_in_other(own: Alpha, other: Alpha, log_square: Diagonal) -> Diagonal:
    """r^2 / (own + other r^2)^2."""
    return _finite_exp(log_square - 2 * _log_precision(own, other, log_square))


def _finite_exp(log: Diagonal) -> Diagonal:
    """The exponential, or the largest float: a derivative that is multiplied by 0 must not be infinite."""
    return jnp.minimum(jnp.exp(log), jnp.finfo(log.dtype).max)


_log_precision.defjvps(
    None,
    lambda tangent, _, *at: tangent * _log_precision_in_other(*at),
    lambda tangent, _, *at: tangent * _share(*at),
)
_share.defjvps(
    None,
    lambda tangent, _, *at: tangent * _share_in_other(*at),
    lambda tangent, share, own, other, log_square: tangent * share * _share(other, own, -log_square),
)


@jax.custom_jvp
def _log_ratio(scale_q: Diagonal, scale_p: Diagonal) -> Diagonal:
    """log(scale_q / scale_p), exact near equality."""
    excess, ratio = (scale_q - scale_p) / scale_p, scale_q / scale_p
    far = jnp.where(jnp.isinf(ratio), jnp.log(scale_q) - jnp.log(scale_p), jnp.log(ratio))
    return jnp.where(jnp.abs(excess) < 0.5, jnp.log1p(excess), far)


_log_ratio.defjvps(
    lambda tangent, _, scale_q, scale_p: tangent / scale_q, lambda tangent, _, scale_q, scale_p: -tangent / scale_p
)


def _valid_alpha(name: str, alpha: Alpha) -> Alpha:
    """1, or NaN where alpha is an array outside [0, 1]: as a factor, so that the gradient is NaN too."""
    if not isinstance(alpha, float | int):
        return jnp.where((alpha >= 0) & (alpha <= 1), 1, jnp.nan).astype(alpha.dtype)
    if not 0 <= alpha <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {alpha}: 0 is q and 1 is p")
    return 1.0


def _valid(scale_q: Diagonal, scale_p: Diagonal) -> Scalar:
    """1, or NaN where a scale is not positive: as a factor, so that the gradient is NaN too."""
    return jnp.where(jnp.all(scale_q > 0) & jnp.all(scale_p > 0), 1, jnp.nan).astype(scale_q.dtype)


def _log_remainder(scale_q: Diagonal, scale_p: Diagonal) -> Diagonal:
    """r^2 - 1 - log r^2 with r = scale_q / scale_p.

    r^2 - 1 is taken from the difference of the scales, which is exact near r = 1.
    """
    excess = (scale_q - scale_p) / scale_p * ((scale_q + scale_p) / scale_p)
    # Where the ratio overflows, so does the remainder: its log must not, for infinity less infinity is NaN.
    ratio = jnp.minimum(scale_q / scale_p, jnp.finfo(scale_q.dtype).max)
    plain = excess - 2 * jnp.log(ratio)
    return jnp.where(jnp.abs(excess) < NEAR, _near_remainder(excess), plain)


@jax.custom_jvp
def _exponential_remainder(log_square: Diagonal) -> Diagonal:
    """exp(x) - 1 - x, about x^2 / 2."""
    series = jnp.zeros_like(log_square)
    for power in range(16, 1, -1):
        series = (1 + series) * (log_square * (1 / power))
    # exp(x) - 1 has no digits to lose outside, and the series none to gain inside.
    return jnp.where(jnp.abs(log_square) < 0.5, series * log_square, jnp.exp(log_square) - 1 - log_square)


_exponential_remainder.defjvps(lambda tangent, _, log_square: tangent * jnp.expm1(log_square))


NEAR = 0.25
"""The largest excess whose remainder is taken from the series."""


def _near_remainder(excess: Diagonal) -> Diagonal:
    """x - log(1 + x) of an excess below `NEAR`, about x^2 / 2.

    With y = x / (2 + x), log(1 + x) = 2 atanh(y) and x - 2y = xy, so that the remainder is xy - 2 (y^3/3 + y^5/5 + ...)
    and nothing cancels.
    """
    # The series sees only arguments it converges at, so that its gradient is finite where it is not used.
    x = jnp.where(jnp.abs(excess) < NEAR, excess, 0)
    y = x / (2 + x)
    tail = jnp.zeros_like(y)
    for power in range(21, 1, -2):
        tail = (tail + 1 / power) * y**2
    return x * y - 2 * y * tail
