"""Antithetic pairs: samples that mirror each other, so that the odd part of the integrand cancels."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from vae_jax import distributions
from vae_jax.estimators.coupled_draws import NUM_PROBES, CoupledDraws, check_baselines, with_draws
from vae_jax.estimators.quantiles import has_quantiles, midpoints, quantiles, transformed, uniform_shape
from vae_jax.typing import Distributions, Estimator, Objective, PRNGKey, Scalar

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


def antithetic_pairs(estimator: Estimator) -> Estimator:
    """Makes an estimator draw antithetic pairs: its samples i and i + S/2 mirror each other.

    The mirror image of z is 2 loc - z, or that of u is 1 - u where z is the quantile of u. All latents are mirrored
    together. The part of the integrand that is odd about q's centre cancels. The variance of the value rises, to at
    most twice that of independent draws, where the objective is even.

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

    Example:
        >>> import jax
        >>> import numpyro.distributions as dist
        >>> import vae_jax as vj
        >>> estimator = vj.antithetic_pairs(vj.pathwise)
        >>> def estimate(loc):
        ...     return estimator(lambda z, q: 2.0 * z + 1.0, dist.Normal(loc, 1.0), jax.random.key(0), 2)
        >>> value, gradient = jax.jit(jax.value_and_grad(estimate))(1.5)
        >>> print(f"{value:.2f}, gradient {gradient:.2f}")  # one pair is exact where the objective is linear
        4.00, gradient 2.00

    Reference: Hammersley & Morton (1956); Owen (2013), Monte Carlo theory, methods and examples, section 8.2.
    """
    own = np.eye(NUM_PROBES)
    check_baselines(estimator, own + np.roll(own, NUM_PROBES // 2, axis=0), instead="leave_one_pair_out")

    def paired(objective: Objective, q: Distributions, key: PRNGKey, num_samples: int) -> Scalar:
        return with_draws(estimator, _antithetic, objective, q, key, num_samples)

    return paired


@partial(jax.tree_util.register_dataclass, data_fields=["base"], meta_fields=[])
@dataclass(frozen=True)
class _AntitheticDraws(CoupledDraws):
    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        (num_samples,) = sample_shape
        if num_samples % 2:
            raise ValueError(f"num_samples must be even for antithetic pairs, got {num_samples}: use one more")
        return jnp.concatenate(_mirrored(self.base, key, num_samples // 2))


def _antithetic(q: Distributions) -> Distributions:
    for name, leaf in distributions.named_leaves(q):
        if not _has_mirror(leaf):
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which is not symmetric and has no quantile function in closed "
                "form: antithetic_pairs expects either; use the estimator without it"
            )
    return jax.tree.map(_AntitheticDraws, q, is_leaf=distributions.is_distribution)


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
    return isinstance(distributions.base_distribution(q), SYMMETRIC)


def _centre(q: Any) -> Array:
    return jnp.broadcast_to(distributions.base_distribution(q).loc, q.batch_shape + q.event_shape)
