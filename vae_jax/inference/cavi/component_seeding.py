"""The seeds that the components of a mixture start from."""

import operator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vae_jax.typing import PRNGKey


def plus_plus_labels(key: PRNGKey, points: Float[Array, "F N"], num_seeds: Int[Array, ""] | int) -> Int[Array, " N"]:
    """The nearest of K seeds for each point, each seed drawn by the squared distance from those before it.

    Where fewer than K points differ, some seeds have no points. The number of seeds may be traced.

    Reference: Arthur & Vassilvitskii (2007), section 2.2.
    """

    def add_seed(number: Any, nearest: tuple[Any, Any]) -> tuple[Any, Any]:
        distances, labels = nearest
        seed = _drawn_by(distances, jax.random.fold_in(key, number))
        # Row by row: a sum over an axis so short takes fifty times as long.
        squares = reduce(operator.add, ((row - row[seed]) ** 2 for row in points))
        closer = (squares < distances) | (number == 0)
        return jnp.where(closer, squares, distances), jnp.where(closer, number, labels)

    num_points = points.shape[1]
    # The first seed is drawn uniformly.
    start = jnp.ones(num_points, points.dtype), jnp.zeros(num_points, int)
    return lax.fori_loop(0, num_seeds, add_seed, start)[1]


def _drawn_by(weights: Float[Array, " N"], key: PRNGKey) -> Int[Array, ""]:
    """An index with probability in proportion to its weight, from one uniform number rather than one an index."""
    sums = jnp.cumsum(weights)
    number = jax.random.uniform(key, dtype=weights.dtype) * sums[-1]
    return jnp.minimum(jnp.searchsorted(sums, number, side="right"), weights.shape[0] - 1)


def labels_by_size(labels: Int[Array, " N"], prior: Float[Array, " K"]) -> Int[Array, " N"]:
    """Labels renamed so that the larger clusters have the larger prior weights.

    Ascent does not find its way from one naming to another.
    """
    sizes = jnp.zeros(prior.shape[0], int).at[labels].add(1)
    names = jnp.zeros(prior.shape[0], int).at[jnp.argsort(sizes)].set(jnp.argsort(prior))
    return names[labels]
