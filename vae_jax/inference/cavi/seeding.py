"""Where the components of a mixture start."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vae_jax.typing import PRNGKey


def plus_plus_labels(key: PRNGKey, points: Float[Array, "N F"], num_seeds: Int[Array, ""] | int) -> Int[Array, " N"]:
    """The nearest of K seeds for each point, each seed drawn by the squared distance from those before it.

    Where fewer than K points differ, some seeds have no points. The number of seeds may be traced.

    Reference: Arthur & Vassilvitskii (2007), section 2.2.
    """

    def add_seed(number: Any, nearest: tuple[Any, Any]) -> tuple[Any, Any]:
        distances, labels = nearest
        # All are infinite before the first seed, which is drawn uniformly.
        logits = jnp.where(jnp.isinf(distances), 0, jnp.log(distances))
        seed = points[jax.random.categorical(jax.random.fold_in(key, number), logits)]
        squares = ((points - seed[None]) ** 2).sum(1)
        closer = squares < distances
        return jnp.where(closer, squares, distances), jnp.where(closer, number, labels)

    num_points = points.shape[0]
    start = jnp.full(num_points, jnp.inf, points.dtype), jnp.zeros(num_points, int)
    return lax.fori_loop(0, num_seeds, add_seed, start)[1]


def labels_by_size(labels: Int[Array, " N"], prior: Float[Array, " K"]) -> Int[Array, " N"]:
    """Labels renamed so that the larger clusters have the larger prior weights.

    Ascent does not find its way from one naming to another.
    """
    sizes = jnp.zeros(prior.shape[0], int).at[labels].add(1)
    names = jnp.zeros(prior.shape[0], int).at[jnp.argsort(sizes)].set(jnp.argsort(prior))
    return names[labels]
