"""Bijections from numbers without constraints, in the forms that keep their digits in float32."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions.transforms import (
    ComposeTransform,
    CorrCholeskyTransform,
    IndependentTransform,
    StickBreakingTransform,
    Transform,
    biject_to,
)
from numpyro.distributions.util import vec_to_tril_matrix


def bijection_to(constraint: Any) -> Transform:
    """The bijection from numbers without constraints to a support: NumPyro's `biject_to`, by stable formulas.

    Args:
        constraint: one of `numpyro.distributions.constraints`.

    Raises:
        NotImplementedError: NumPyro has no bijection to it.

    Example:
        >>> import jax.numpy as jnp
        >>> from numpyro.distributions import constraints
        >>> from vae_jax.bijections import bijection_to
        >>> shares = bijection_to(constraints.simplex)(jnp.array([30.0, 0.0]))
        >>> [f"{share:.1e}" for share in shares]  # NumPyro rounds the last two to 6e-8
        ['1.0e+00', '9.4e-14', '9.4e-14']
    """
    return stable(biject_to(constraint))


def stable(transform: Transform) -> Transform:
    """The same bijection by formulas that keep their digits where an intermediate result of NumPyro's rounds to 1.

    Example:
        >>> from numpyro.distributions import transforms
        >>> from vae_jax.bijections import stable
        >>> [type(stable(each)).__name__ for each in (transforms.StickBreakingTransform(), transforms.ExpTransform())]
        ['LogStickBreaking', 'ExpTransform']
    """
    match transform:
        case StickBreakingTransform():
            return LogStickBreaking()
        case CorrCholeskyTransform():
            return LogCorrCholesky()
        case ComposeTransform():
            return ComposeTransform([stable(part) for part in transform.parts])
        case IndependentTransform():
            return IndependentTransform(stable(transform.base_transform), transform.reinterpreted_batch_ndims)
    return transform


class LogStickBreaking(StickBreakingTransform):
    """NumPyro's bijection to a simplex, whose shares are exponentials of sums of logs."""

    def __call__(self, x: Any) -> Any:
        return _positive_exp(_log_shares(_balanced(x)))

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        x = _balanced(x)
        return (_log_shares(x)[..., :-1] + jax.nn.log_sigmoid(-x)).sum(axis=-1)


class LogCorrCholesky(CorrCholeskyTransform):
    """NumPyro's bijection to the Cholesky factor of a correlation matrix, by logs of what is left of each row."""

    def __call__(self, x: Any) -> Any:
        left = 0.5 * jnp.cumsum(vec_to_tril_matrix(_log_sech_square(x), diagonal=-1), axis=-1)
        scale = _positive_exp(_shifted(left[..., :-1]))
        ones = jnp.broadcast_to(jnp.eye(scale.shape[-1], dtype=scale.dtype), scale.shape)
        return (vec_to_tril_matrix(jnp.tanh(x), diagonal=-1) + ones) * scale

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        rows, columns = jnp.tril_indices(y.shape[-1], -1)
        # An element of a row scales all elements between itself and the diagonal.
        counts = jnp.broadcast_to(1 + (rows - 1 - columns).astype(x.dtype) / 2, x.shape)
        return (_log_sech_square(x) * counts).sum(axis=-1)


def _balanced(x: Array) -> Array:
    """Numbers shifted so that zeros give equal shares."""
    return x - jnp.broadcast_to(jnp.log(jnp.arange(x.shape[-1], 0, -1, x.dtype)), x.shape)


def _log_shares(x: Array) -> Array:
    """log of each share of a stick: a fraction of what those before it have left."""
    left = _shifted(jnp.cumsum(jax.nn.log_sigmoid(-x), axis=-1))
    return left.at[..., :-1].add(jax.nn.log_sigmoid(x))


def _shifted(x: Array) -> Array:
    """Elements moved up by one along the last axis, with a zero before the first."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 0)])


def _log_sech_square(x: Array) -> Array:
    """log(1 - tanh(x)^2)."""
    distance = jnp.abs(x)
    return 2 * (jnp.log(2.0).astype(x.dtype) - distance - jax.nn.softplus(-2 * distance))


def _positive_exp(x: Array) -> Array:
    """The exponential, never rounded to zero: a draw stays inside of its support."""
    return jnp.maximum(jnp.exp(x), jnp.finfo(x.dtype).tiny)
