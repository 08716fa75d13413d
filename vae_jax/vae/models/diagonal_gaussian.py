"""Diagonal Gaussians: their parameters, samples and densities."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.typing import PRNGKey, Scalar


class DiagonalGaussian(NamedTuple):
    """The parameters of diagonal Gaussians, batched along the leading axes."""

    loc: Float[Array, "*B D"]
    log_scale: Float[Array, "*B D"]


def gaussian_rsample(gaussian: DiagonalGaussian, key: PRNGKey, sample_shape: tuple[int, ...]) -> Float[Array, "*S D"]:
    """Samples of diagonal Gaussians, differentiable in their parameters."""
    noise = jax.random.normal(key, sample_shape + gaussian.loc.shape, gaussian.loc.dtype)
    if not sample_shape:
        return gaussian.loc + jnp.exp(gaussian.log_scale) * noise
    return gaussian.loc[None] + jnp.exp(gaussian.log_scale)[None] * noise


def gaussian_log_prob(gaussian: DiagonalGaussian, value: Float[Array, " D"]) -> Float[Array, " D"]:
    """log density of each element of a diagonal Gaussian (nats)."""
    noise = (value - gaussian.loc) * jnp.exp(-gaussian.log_scale)
    return -(noise**2 + math.log(2 * math.pi)) / 2 - gaussian.log_scale


def standard_normal_log_prob(z: Float[Array, " D"]) -> Scalar:
    """log Normal(z; 0, I) (nats)."""
    return -((z**2).sum() + z.size * math.log(2 * math.pi)) / 2
