"""Estimators whose samples are drawn together, so that their errors cancel. Each sample still has q's distribution.

The samples of one estimate are then not independent: a baseline must not be made of the other samples' values, except
of those outside an antithetic pair.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, UInt32

from vae_jax import distributions
from vae_jax.estimators.baselines import leave_one_out, leave_one_pair_out
from vae_jax.estimators.control_variates import optimal_score
from vae_jax.typing import Distributions, Estimator, Latents, Objective, PRNGKey, Scalar

SYMMETRIC = (
    dist.Cauchy,
    dist.Laplace,
    dist.Logistic,
    dist.MultivariateNormal,
    dist.MultivariateStudentT,
    dist.Normal,
    dist.StudentT,
)
"""Families that are symmetric about their `loc`."""

NUMERICAL_QUANTILES = (dist.Beta, dist.Gamma, dist.StudentT)
"""Families whose quantile function is inverted numerically, which JAX does not differentiate."""


def antithetic_pairs(estimator: Estimator) -> Estimator:
    """An estimator whose samples i and i + S/2 mirror each other: by 2 loc - z, or by u to 1 - u under the quantiles.

    All latents are mirrored together. The part of the integrand that is odd about q's centre cancels. The variance of
    the value rises, to at most twice that of independent draws, where the objective is even.

    A baseline must leave out a sample's whole pair: `leave_one_pair_out`. With `leave_one_out` at S samples the
    gradient of the loc of a symmetric q is 1 + 1 / (S - 1) times too large, and that of its scale 1 - 1 / (S - 1) times
    as large as it should be.

    Args:
        estimator: one that draws through `distributions.sample` or `rsample`, such as `pathwise` or `score_function`.
            The objective sees `q` itself.

    Returns:
        The estimator over S/2 pairs. It needs symmetric distributions, ones with a quantile function in closed form, or
        elementwise transforms of these. It is unbiased where `estimator` is over independent pairs. It raises TypeError
        for another distribution, and ValueError for an odd number of samples.

    Raises:
        ValueError: the estimator makes a sample's baseline of its pair.

    Reference: Hammersley & Morton (1956); Owen (2013), Monte Carlo theory, methods and examples, section 8.2.
    """
    _check_baseline(estimator, {leave_one_out: "leave_one_pair_out", optimal_score: "score_function"})

    def paired(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
        return _with_draws(estimator, _antithetic, objective, q, key, num_samples)

    return paired


def randomized_sobol(estimator: Estimator) -> Estimator:
    """An estimator whose samples are the quantiles of one scrambled Sobol sequence over all of q's latents.

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

    Reference: Owen (1997); Matousek (1998) for the scrambling; Joe & Kuo (2008) for the direction numbers; Buchholz,
        Wenzel & Mandt (2018) for variational inference.
    """
    independent = {leave_one_out: "no_baseline", leave_one_pair_out: "no_baseline", optimal_score: "score_function"}
    _check_baseline(estimator, independent)

    def coupled(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
        return _with_draws(estimator, _sobol, objective, q, key, num_samples)

    return coupled


@dataclass(frozen=True)
class _Coupled:
    """A distribution with other draws."""

    base: Any

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.base.batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.base.event_shape

    @property
    def has_rsample(self) -> bool:
        return self.base.has_rsample

    def log_prob(self, value: Any) -> Any:
        return self.base.log_prob(value)

    def entropy(self) -> Any:
        return self.base.entropy()

    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        raise NotImplementedError

    def sample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        return lax.stop_gradient(self.rsample(key, sample_shape))


@partial(jax.tree_util.register_dataclass, data_fields=["base"], meta_fields=[])
@dataclass(frozen=True)
class _AntitheticDraws(_Coupled):
    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        (num_samples,) = sample_shape
        if num_samples % 2:
            raise ValueError(f"num_samples must be even for antithetic pairs, got {num_samples}: use one more")
        return jnp.concatenate(_mirrored(self.base, key, num_samples // 2))


@partial(jax.tree_util.register_dataclass, data_fields=["base"], meta_fields=["first_dimension"])
@dataclass(frozen=True)
class _SobolDraws(_Coupled):
    first_dimension: int
    """Of the sequence: latents share one and take dimensions in turn."""

    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        (num_samples,) = sample_shape
        shape = _uniform_shape(self.base)
        bits = _scrambled_sobol(key, num_samples, self.first_dimension, math.prod(shape))
        return _quantiles(self.base, _midpoints(bits).reshape(num_samples, *shape))


def _with_draws(
    estimator: Estimator,
    couple: Callable[[Distributions], Distributions],
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
) -> Scalar:
    distributions.check_latents(q, num_samples)

    def undressed(sample: Latents, q: Distributions) -> Any:
        return objective(sample, jax.tree.map(lambda leaf: leaf.base, q, is_leaf=_is_coupled))

    return estimator(undressed, couple(q), key, num_samples)


def _is_coupled(node: object) -> bool:
    return isinstance(node, _Coupled)


def _check_baseline(estimator: Any, refused: dict[Any, str]) -> None:
    while True:
        parts = [estimator, *getattr(estimator, "keywords", {}).values()]
        for coupled, instead in refused.items():
            if any(part is coupled for part in parts):
                raise ValueError(
                    "estimator must not make a sample's baseline of samples coupled to it, got "
                    f"{coupled.__name__}: use {instead}"
                )
        if not isinstance(estimator, partial):
            return
        estimator = estimator.func


def _antithetic(q: Distributions) -> Distributions:
    for name, leaf in distributions.named_leaves(q):
        if not _has_mirror(leaf):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which is not symmetric and has no quantile function in closed "
                "form: antithetic_pairs expects either; use the estimator without it"
            )
    return jax.tree.map(_AntitheticDraws, q, is_leaf=distributions.is_distribution)


def _sobol(q: Distributions) -> Distributions:
    coupled, first_dimension = [], 0
    for name, leaf in distributions.named_leaves(q):
        if not _has_quantiles(leaf):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which has no quantile function in closed form: randomized_sobol "
                "expects one; use the estimator without it"
            )
        coupled.append(_SobolDraws(leaf, first_dimension))
        first_dimension += math.prod(_uniform_shape(leaf))
    return jax.tree.structure(q, is_leaf=distributions.is_distribution).unflatten(coupled)


def _has_mirror(q: Any) -> bool:
    match q:
        case dist.Independent() | dist.TransformedDistribution():
            return _has_mirror(q.base_dist)
    return _is_symmetric(q) or _has_quantiles(q)


def _mirrored(q: Any, key: PRNGKey, num_pairs: int) -> tuple[Array, Array]:
    """Draws, and the draws opposite them."""
    match q:
        case dist.Independent():
            return _mirrored(q.base_dist, key, num_pairs)
        case dist.TransformedDistribution():
            draws, opposite = _mirrored(q.base_dist, key, num_pairs)
            return _transformed(q, draws), _transformed(q, opposite)
    if _is_symmetric(q):
        draws = q.rsample(key, (num_pairs,))
        return draws, 2 * _centre(q) - draws
    uniforms = _midpoints(jax.random.bits(key, (num_pairs, *_uniform_shape(q)), jnp.uint32))
    # Midpoints are symmetric about 1/2 exactly.
    return _quantiles(q, uniforms), _quantiles(q, 1 - uniforms)


def _is_symmetric(q: Any) -> bool:
    return isinstance(q.base_dist if isinstance(q, dist.ExpandedDistribution) else q, SYMMETRIC)


def _centre(q: Any) -> Array:
    family: Any = q.base_dist if isinstance(q, dist.ExpandedDistribution) else q
    return jnp.broadcast_to(family.loc, q.batch_shape + q.event_shape)


def _has_quantiles(q: Any) -> bool:
    match q:
        case dist.Independent() | dist.TransformedDistribution():
            return _has_quantiles(q.base_dist)
        case dist.ExpandedDistribution():
            return q.base_dist.event_shape == () and _has_quantiles(q.base_dist)
        case dist.MultivariateNormal():
            return True
    discrete = getattr(getattr(q, "support", None), "is_discrete", False)
    icdf = getattr(type(q), "icdf", None)
    families = (q, getattr(q, "base_dist", None))
    numerical = any(isinstance(family, NUMERICAL_QUANTILES) for family in families)
    return icdf not in (None, dist.Distribution.icdf) and not discrete and not numerical


def _uniform_shape(q: Any) -> tuple[int, ...]:
    """Of the uniform variables that one draw of q is made of."""
    match q:
        case dist.Independent() | dist.TransformedDistribution():
            return _uniform_shape(q.base_dist)
    return tuple(q.batch_shape) + tuple(getattr(q, "event_shape", ()))


def _quantiles(q: Any, uniforms: Float[Array, "S ..."]) -> Array:
    """Draws of q from uniform variables, differentiable in its parameters."""
    match q:
        case dist.Independent() | dist.ExpandedDistribution():
            return _quantiles(q.base_dist, uniforms)
        case dist.TransformedDistribution():
            return _transformed(q, _quantiles(q.base_dist, uniforms))
        case dist.MultivariateNormal():
            scale_tril: Any = q.scale_tril
            return jnp.asarray(q.loc) + (scale_tril @ ndtri(uniforms)[..., None])[..., 0]
    return q.icdf(uniforms)


def _transformed(q: Any, draws: Array) -> Array:
    for transform in q.transforms:
        draws = transform(draws)
    return draws


def _midpoints(bits: UInt32[Array, "..."]) -> Float[Array, "..."]:
    """Random bits to numbers within (0, 1), at the middle of the cells that the type resolves."""
    dtype = jnp.result_type(float)
    # One bit to spare, so that (1 + u) / 2, which half-normals take a quantile of, is not rounded to 1.
    resolved = min(32, jnp.finfo(dtype).nmant - 1)
    return ((bits >> (32 - resolved)).astype(dtype) + 0.5) * 2.0**-resolved


_PLACES = np.left_shift(np.uint32(1), np.arange(31, -1, -1, dtype=np.uint32))
"""The bits of a word, the first of a binary fraction first."""


def _scrambled_sobol(key: PRNGKey, num_samples: int, first_dimension: int, num_dimensions: int) -> UInt32[Array, "S D"]:
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
    """What bit k of a point's index contributes to each dimension, [num_bits, num_dimensions]."""
    # Imported on use: it takes longer than the rest of the library.
    from scipy.stats import qmc

    sequence = qmc.Sobol(first_dimension + num_dimensions, scramble=False, bits=32)
    fractions = sequence.random_base2(num_bits)[:, first_dimension:]
    points = (fractions * 2.0**32).astype(np.uint32)
    # In Gray code order point 2^k differs from the one before it by direction k alone.
    starts = 2 ** np.arange(num_bits)
    return points[starts] ^ points[starts - 1]
