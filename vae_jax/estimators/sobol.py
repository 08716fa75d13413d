"""Randomized quasi-Monte Carlo: samples that are quantiles of a scrambled Sobol sequence.

Reference: Matousek (1998) for the scrambling; Joe & Kuo (2008) for the direction numbers.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from vae_jax import distributions
from vae_jax.estimators.coupled_draws import NUM_PROBES, CoupledDraws, check_baselines, with_draws
from vae_jax.estimators.quantiles import has_quantiles, midpoints, quantiles, uniform_shape
from vae_jax.typing import Distributions, Estimator, Objective, PRNGKey, Scalar

_PLACES = np.left_shift(np.uint32(1), np.arange(31, -1, -1, dtype=np.uint32))
"""The bits of a word, the first of a binary fraction first."""


def scrambled_sobol(key: PRNGKey, num_samples: int, first_dimension: int, num_dimensions: int) -> UInt32[Array, "S D"]:
    """The first points of a Sobol sequence as binary fractions, by random lower triangular matrices and a shift."""
    matrix_key, shift_key = jax.random.split(key)
    shift = jax.random.bits(shift_key, (1, num_dimensions), jnp.uint32)
    # Column c holds a one at place c, and random bits at the later places.
    columns = (jax.random.bits(matrix_key, (num_dimensions, 32), jnp.uint32) & (_PLACES - 1)[None]) | _PLACES[None]
    directions = _direction_numbers(first_dimension, num_dimensions, (num_samples - 1).bit_length())
    scrambled = _exclusive_or(jnp.where(directions[:, :, None] & _PLACES != 0, columns[None], np.uint32(0)), axis=2)
    indices = np.arange(num_samples, dtype=np.uint32)
    points = jnp.broadcast_to(shift, (num_samples, num_dimensions))
    for place, direction in enumerate(scrambled):
        chosen = (indices >> np.uint32(place)) & np.uint32(1)
        points = points ^ (chosen[:, None] * direction[None])
    return points


def _exclusive_or(words: UInt32[Array, "..."], axis: int) -> UInt32[Array, "..."]:
    return lax.reduce(words, np.uint32(0), lax.bitwise_xor, (axis,))


@lru_cache(maxsize=32)
def _direction_numbers(first_dimension: int, num_dimensions: int, num_bits: int) -> np.ndarray:
    """Direction numbers: the contribution of bit k of a point's index to each dimension, [num_bits, num_dimensions]."""
    # Imported on use: it takes longer than the rest of the library.
    from scipy.stats import qmc

    sequence = qmc.Sobol(first_dimension + num_dimensions, scramble=False, bits=32)
    fractions = sequence.random_base2(num_bits)[:, first_dimension:]
    points = (fractions * 2.0**32).astype(np.uint32)
    # In Gray code order point 2^k differs from the one before it by direction k alone.
    starts = 2 ** np.arange(num_bits)
    return points[starts] ^ points[starts - 1]


def randomized_sobol(estimator: Estimator) -> Estimator:
    """Makes an estimator draw its samples as quantiles of one scrambled Sobol sequence over all latents.

    The sequence is scrambled by random matrices and shifted at random for each key, so that each point is uniform. For
    a smooth integrand of few effective dimensions the variance falls faster than 1/S, nearly as 1/S^3, at S a power of
    two; other numbers of samples are unbiased too, but lose the balance that this comes from.

    All samples of an estimate depend on each other: no baseline may be made of the others' values.

    Args:
        estimator: one that draws through `distributions.sample` or `rsample`, such as `pathwise` or `score_function`.
            The objective sees `q` itself.

    Returns:
        The estimator over one scrambled sequence. It needs distributions with a quantile function in closed form,
        multivariate normals, or transforms of these. It is unbiased where `estimator` is for any coupling of its
        samples. It raises TypeError for another distribution.

    Raises:
        ValueError: the estimator makes a sample's baseline of the others.

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> estimator = vj.randomized_sobol(vj.pathwise)
        >>> def estimate(loc):  # E[z^2] = loc^2 + 1
        ...     return estimator(lambda z, q: z**2, dist.Normal(loc, 1.0), jax.random.key(0), 256)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.2)
        >>> print(f"{value:.1f}, gradient {gradient:.2f}")  # as precise as over 50,000 independent samples
        2.4, gradient 2.40

    Reference: Owen (1997); Matousek (1998) for the scrambling; Joe & Kuo (2008) for the direction numbers; Buchholz,
        Wenzel & Mandt (2018) for variational inference.
    """
    check_baselines(estimator, np.ones((NUM_PROBES, NUM_PROBES)), instead="no_baseline")

    def coupled(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
        return with_draws(estimator, _sobol, objective, q, key, num_samples)

    return coupled


@partial(jax.tree_util.register_dataclass, data_fields=["base"], meta_fields=["first_dimension"])
@dataclass(frozen=True)
class _SobolDraws(CoupledDraws):
    first_dimension: int
    """Dimension of the sequence: latents share one and take dimensions in turn."""

    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        (num_samples,) = sample_shape
        shape = uniform_shape(self.base)
        bits = scrambled_sobol(key, num_samples, self.first_dimension, math.prod(shape))
        return quantiles(self.base, midpoints(bits).reshape(num_samples, *shape))


def _sobol(q: Distributions) -> Distributions:
    coupled, first_dimension = [], 0
    for name, leaf in distributions.named_leaves(q):
        if not has_quantiles(leaf):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which has no quantile function in closed form: randomized_sobol "
                "expects one; use the estimator without it"
            )
        coupled.append(_SobolDraws(leaf, first_dimension))
        first_dimension += math.prod(uniform_shape(leaf))
    return distributions.unflatten(q, coupled)
