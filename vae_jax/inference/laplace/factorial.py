"""Laplace's approximation of N!, which is Stirling's."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax.tree_util import Partial

from vae_jax.inference.laplace.laplace import laplace
from vae_jax.typing import Scalar


@dataclass(frozen=True)
class FactorialApproximation:
    """Laplace's approximation of N!, which is Stirling's, and the exact value."""

    number: int
    """N."""
    mode: float
    """The mode of exp(N log t - t), which is N."""
    scale: float
    """The standard deviation of the Gaussian at the mode, which is sqrt(N)."""
    log_approximation: float
    """The approximate log N! (nats)."""
    log_factorial: float
    error: float
    """The error of the logarithm: 1 / (12 N) - 1 / (360 N^3) + ..."""
    scaled_error: float
    """The error times 12 N, which is about 1 - 1 / (30 N^2)."""
    resolution: float
    """The largest error that rounding may cause (nats)."""
    reliable: bool
    """Whether rounding is under 5% of the error."""
    num_steps: int


def approximate_factorial(number: int) -> FactorialApproximation:
    """Approximates N! as the integral of exp(N log t - t) over positive t, by Laplace's method.

    The approximation is sqrt(2 pi N) (N / e)^N. Its error is soon below the rounding of float32: use float64.

    Args:
        number: N, at least 1.

    Returns:
        The approximation, the exact value and the error (nats).

    Raises:
        ValueError: N is not at least 1. The integrand of 0! has its mode at the boundary.

    Example:
        The approximation is below 10! = 3,628,800 by close to 1 / 120 of it:

        >>> from vae_jax.inference import approximate_factorial
        >>> ten = approximate_factorial(10)
        >>> f"mode {ten.mode:.1f}, scale {ten.scale:.2f}, error {ten.error:.4f} nats"
        'mode 10.0, scale 3.16, error 0.0083 nats'

    Reference: Stirling (1730); MacKay (2003), eqs. 1.12 and 27.1; Abramowitz & Stegun (1964), eq. 6.1.41.
    """
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}: 0! and what is below has no mode to approximate at")
    approximation = laplace(Partial(_log_integrand, jnp.asarray(float(number))), jnp.ones(()))
    exact = math.lgamma(number + 1)
    log_approximation = float(approximation.log_evidence)
    error = exact - log_approximation
    resolution = 2 * float(jnp.finfo(approximation.covariance.dtype).eps) * number * (math.log(number) + 1)
    return FactorialApproximation(
        number=number,
        mode=float(approximation.mode),
        scale=float(approximation.marginal_scale),
        log_approximation=log_approximation,
        log_factorial=exact,
        error=error,
        scaled_error=12 * number * error,
        resolution=resolution,
        reliable=resolution < 0.05 * error,
        num_steps=approximation.num_steps,
    )


def _log_integrand(number: Scalar, t: Scalar) -> Scalar:
    return number * jnp.log(t) - t
