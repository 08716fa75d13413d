"""Pytrees of independent distributions: drawing from them and evaluating them together."""

import math
import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from numpyro.distributions.truncated import LeftTruncatedDistribution

from vae_jax.typing import Distribution, Distributions, Latents, PRNGKey, Scalar


def is_distribution(node: object) -> bool:
    """Whether a node of a pytree is a distribution rather than a container of them."""
    return isinstance(node, Distribution)


def sample(q: Distributions, key: PRNGKey, num_samples: int) -> Latents:
    """Draws from every distribution of `q`, with no gradient to its parameters.

    Args:
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed; each distribution draws from its own split of it.
        num_samples: S, a positive number known before tracing.

    Returns:
        A pytree with the structure of `q`, each leaf [S, *event_shape].

    Raises:
        TypeError: a leaf of `q` is not a distribution.
        ValueError: `num_samples` is not positive, or a distribution has a batch shape.
    """
    _check(q, num_samples)
    return lax.stop_gradient(_draw(q, key, num_samples, "sample"))


def rsample(q: Distributions, key: PRNGKey, num_samples: int) -> Latents:
    """Draws like `sample`, differentiable in the parameters of `q`.

    Raises:
        TypeError: as `sample`, or a distribution of `q` is not reparameterizable.
        ValueError: as `sample`.
    """
    _check(q, num_samples)
    for name, leaf in _named_leaves(q):
        if not leaf.has_rsample:
            raise TypeError(
                f"{name} is a {type(leaf).__name__}, which has no reparameterized sampler: a pathwise estimator "
                "expects one; use score_function instead"
            )
    return _draw(q, key, num_samples, "rsample")


def log_prob(q: Distributions, value: Latents) -> Scalar:
    """Joint log density (nats) of one value under the independent distributions of `q`."""
    terms = jax.tree.map(lambda leaf, leaf_value: leaf.log_prob(leaf_value), q, value, is_leaf=is_distribution)
    return reduce(operator.add, jax.tree.leaves(terms))


def entropy(q: Distributions) -> Scalar:
    """Joint entropy (nats), where every distribution of `q` has one in closed form."""
    return reduce(operator.add, (leaf.entropy() for _, leaf in _named_leaves(q)))


def _draw(q: Distributions, key: PRNGKey, num_samples: int, method: str) -> Latents:
    leaves, structure = jax.tree.flatten(q, is_leaf=is_distribution)
    leaf_keys = jax.random.split(key, len(leaves))
    draws = [getattr(leaf, method)(leaf_key, (num_samples,)) for leaf, leaf_key in zip(leaves, leaf_keys, strict=True)]
    return jax.tree.unflatten(structure, draws)


def _named_leaves(q: Distributions) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(q, is_leaf=is_distribution)
    return [(f"q{jax.tree_util.keystr(path)}", leaf) for path, leaf in leaves]


def _check(q: Distributions, num_samples: int) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    for name, leaf in _named_leaves(q):
        if not is_distribution(leaf):
            raise TypeError(f"{name} must be a distribution (sample, rsample, log_prob), got {type(leaf).__name__}")
        if leaf.batch_shape != ():
            raise ValueError(
                f"{name} must have an empty batch shape, got {leaf.batch_shape}: use .to_event() for one latent "
                "vector, or build q inside vmap for a batch of examples"
            )


class PositiveNormal(LeftTruncatedDistribution):
    """Normal(loc, scale) given that it is positive, reparameterized along loc + scale * noise.

    The density is NumPyro's truncated normal's, so it integrates to one and its score has mean zero. The draws are
    those of a normal whose negative values are drawn again, and the path keeps that normal's dz/dloc = 1 and dz/dscale
    = noise, as a program that redraws does. NumPyro's own sampler follows the quantile function instead, whose path
    slows down to a stop at zero; the two differ by the boundary term that makes this path's derivative of an unbounded
    objective undefined.
    """

    def __init__(self, loc: Any, scale: Any, *, validate_args: bool | None = None) -> None:
        super().__init__(dist.Normal(loc, scale, validate_args=validate_args), low=0.0, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        normal: Any = self.base_dist
        noise = _truncated_noise(key, -normal.loc / normal.scale, sample_shape + self.batch_shape)
        return normal.loc + normal.scale * lax.stop_gradient(noise)

    def log_prob(self, value: Any) -> Any:
        # NumPyro's own mass above zero, through four cdfs, is a third of a compiled program.
        normal: Any = self.base_dist
        edge = -normal.loc / (normal.scale * math.sqrt(2))
        return normal.log_prob(value) - jnp.log(lax.erfc(edge) / 2)


def _truncated_noise(key: PRNGKey, low: Any, shape: tuple[int, ...]) -> Any:
    """Standard normal noise above `low`, by the quantile function at the midpoints of the uniform generator's cells.

    A cell's lower end, which `jax.random.uniform` returns, is `low` itself for one draw in 2^23 of float32: a draw at
    the very edge of the support, far likelier than the density allows.
    """
    dtype = jnp.result_type(low, float)
    resolution = jnp.finfo(dtype).eps
    uniform = jax.random.uniform(key, shape, dtype) + resolution / 2
    edge = lax.erf(low / math.sqrt(2))
    quantile = edge + (1 - edge) * uniform
    return math.sqrt(2) * lax.erf_inv(jnp.minimum(quantile, 1 - resolution / 2))
