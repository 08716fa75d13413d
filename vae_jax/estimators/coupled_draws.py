"""Estimators whose samples are drawn together, so that their errors cancel. Each sample still has q's distribution.

The samples of one estimate are then not independent: a baseline must not be made of the other samples' values, except
of those outside an antithetic pair.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Bool, Float

from vae_jax import distributions
from vae_jax.estimators.control_variates import optimal_score
from vae_jax.estimators.quantiles import has_quantiles, midpoints, quantiles, transformed, uniform_shape
from vae_jax.estimators.sobol import scrambled_sobol
from vae_jax.typing import Baseline, Distributions, Estimator, Latents, Objective, PRNGKey, Scalar

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


PROBES = 8
"""Values that a baseline is differentiated at, to see which samples it is made of."""


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
    own = np.eye(PROBES)
    _check_baselines(estimator, own + np.roll(own, PROBES // 2, axis=0), instead="leave_one_pair_out")

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
    _check_baselines(estimator, np.ones((PROBES, PROBES)), instead="no_baseline")

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
        shape = uniform_shape(self.base)
        bits = scrambled_sobol(key, num_samples, self.first_dimension, math.prod(shape))
        return quantiles(self.base, midpoints(bits).reshape(num_samples, *shape))


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


def _check_baselines(estimator: Estimator, coupled: Float[np.ndarray, "S S"], instead: str) -> None:
    """Refuses an estimator, however wrapped, that makes a sample's baseline of samples coupled to it.

    Args:
        estimator: partial applications are looked through.
        coupled: 1 where two of `PROBES` samples are.
        instead: the baseline to use.
    """
    for name, part in _parts("", estimator):
        if part is optimal_score:
            raise ValueError(
                "estimator must not make a sample's baseline of samples coupled to it, got optimal_score: use "
                "score_function"
            )
        if name == "baseline" and (_dependence(part) * coupled).any():
            raise ValueError(
                "estimator must not make a sample's baseline of samples coupled to it, got "
                f"{getattr(part, '__name__', 'a function')}: use {instead}"
            )


def _parts(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    """What an estimator is made of, with the names of keywords."""
    yield name, part
    if isinstance(part, partial):
        for inner_name, inner in (("", part.func), *(("", each) for each in part.args), *part.keywords.items()):
            yield from _parts(inner_name, inner)


def _dependence(baseline: Baseline) -> Bool[np.ndarray, "S S"]:
    """Which samples' values each sample's baseline is made of, as its derivatives tell."""
    values = jnp.arange(1.0, PROBES + 1) ** 1.5
    return np.asarray(jax.jacobian(lambda values: jnp.broadcast_to(baseline(values), values.shape))(values) != 0)


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
        if not has_quantiles(leaf):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which has no quantile function in closed form: randomized_sobol "
                "expects one; use the estimator without it"
            )
        coupled.append(_SobolDraws(leaf, first_dimension))
        first_dimension += math.prod(uniform_shape(leaf))
    return jax.tree.structure(q, is_leaf=distributions.is_distribution).unflatten(coupled)


def _has_mirror(q: Any) -> bool:
    match q:
        case dist.Independent() | dist.TransformedDistribution():
            return _has_mirror(q.base_dist)
    return _is_symmetric(q) or has_quantiles(q)


def _mirrored(q: Any, key: PRNGKey, num_pairs: int) -> tuple[Array, Array]:
    """Draws, and the draws opposite them."""
    match q:
        case dist.Independent():
            return _mirrored(q.base_dist, key, num_pairs)
        case dist.TransformedDistribution():
            draws, opposite = _mirrored(q.base_dist, key, num_pairs)
            return transformed(q, draws), transformed(q, opposite)
    if _is_symmetric(q):
        draws = q.rsample(key, (num_pairs,))
        return draws, 2 * _centre(q) - draws
    uniforms = midpoints(jax.random.bits(key, (num_pairs, *uniform_shape(q)), jnp.uint32))
    # Midpoints are symmetric about 1/2 exactly.
    return quantiles(q, uniforms), quantiles(q, 1 - uniforms)


def _is_symmetric(q: Any) -> bool:
    return isinstance(q.base_dist if isinstance(q, dist.ExpandedDistribution) else q, SYMMETRIC)


def _centre(q: Any) -> Array:
    family: Any = q.base_dist if isinstance(q, dist.ExpandedDistribution) else q
    return jnp.broadcast_to(family.loc, q.batch_shape + q.event_shape)
