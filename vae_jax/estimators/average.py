"""An objective at many samples."""

import jax
from jaxtyping import Array, Float

from vae_jax.typing import Distributions, Latents, Objective


def values_at(objective: Objective, samples: Latents, q: Distributions) -> Float[Array, " S"]:
    """The objective at each of S samples.

    Raises:
        ValueError: the objective of one sample is not a scalar.
    """
    values = jax.vmap(objective, in_axes=(0, None))(samples, q)
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(values)]
    if not isinstance(values, jax.Array) or shapes != [()]:
        raise ValueError(
            f"objective must return one scalar for one sample, got {type(values).__name__} of shapes {shapes}: "
            "sum over the event dimensions inside it"
        )
    return values
