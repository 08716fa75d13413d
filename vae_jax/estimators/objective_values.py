"""An objective at many samples, and what is multiplied by its values."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.typing import Distributions, Latents, Objective


def values_at(objective: Objective, samples: Latents, q: Distributions) -> Float[Array, " S"]:
    """The objective at each of S samples.

    Raises:
        ValueError: the objective of one sample is not a scalar.
    """
    values = _values(objective, samples, q)
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(values)]
    if not isinstance(values, jax.Array) or shapes != [()]:
        raise ValueError(
            f"objective must return one scalar for one sample, got {type(values).__name__} of shapes {shapes}: "
            "sum over the event dimensions inside it"
        )
    return values


def times_each(factors: Float[Array, " S"], x: Float[Array, "S ..."]) -> Float[Array, "S ..."]:
    """Each sample's array times its factor, in the array's precision."""
    chex.assert_equal_shape_prefix([factors, x], 1)
    return jax.vmap(jnp.multiply)(factors.astype(x.dtype), x)


def _values(objective: Objective, samples: Latents, q: Distributions) -> Any:
    """The objective's results, of any kind, with a leading axis of the samples."""
    if jax.tree.leaves(samples)[0].shape[0] > 1:
        return jax.vmap(objective, in_axes=(0, None))(samples, q)
    # An axis of length 1 would stay in every product of a network, and XLA transposes what it need not: a step of a VAE
    # takes 1.07 times as long on one core.
    value = objective(jax.tree.map(lambda sample: sample[0], samples), q)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], value)
