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
    if getattr(values, "ndim", None) != 1:
        raise ValueError(
            "objective must return a scalar for one sample, got shape "
            f"{getattr(values, 'shape', (0,))[1:]}: sum over the event dimensions inside it"
        )
    return values
