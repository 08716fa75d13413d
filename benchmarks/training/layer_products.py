"""The matrix products of a fully connected layer's training, in both precisions."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.training.training_work import HIDDEN_SIZE, Task, TrainingWork
from vae_jax.vae.config.experiment import Precision

CONTRACTED = {"forward": (1, 0), "input gradient": (1, 1), "weight gradient": (0, 0)}
"""The axes that are summed over, by the purpose of the product."""


def product_task(work: TrainingWork, *, kind: str, precision: Precision, batch_size: int, num_repeats: int) -> Task:
    """One of the three products of the layer next to the pixels, float32 in and out, many times over.

    In bfloat16 both operands are rounded, within the time, and the sum is float32.
    """
    shapes = {
        "forward": ((batch_size, work.num_pixels), (work.num_pixels, HIDDEN_SIZE)),
        "input gradient": ((batch_size, HIDDEN_SIZE), (work.num_pixels, HIDDEN_SIZE)),
        "weight gradient": ((batch_size, work.num_pixels), (batch_size, HIDDEN_SIZE)),
    }[kind]
    operands = [jax.random.normal(jax.random.key(number), shape) for number, shape in enumerate(shapes)]
    dtype = jnp.dtype(precision)
    left_axis, right_axis = CONTRACTED[kind]
    dimensions = (((left_axis,), (right_axis,)), ((), ()))

    @jax.jit
    def repeated(left: Array, right: Array) -> Array:
        def body(_: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
            # Each product waits for the one before it, and rounds its operands anew: nothing can leave the loop.
            left, right = lax.optimization_barrier(carried)
            product = lax.dot_general(
                left.astype(dtype), right.astype(dtype), dimensions, preferred_element_type=jnp.float32
            )
            nothing = 0 * lax.optimization_barrier(product)[0, 0]
            return left.at[0, 0].add(nothing), right.at[0, 0].add(nothing)

        return lax.fori_loop(0, num_repeats, body, (left, right))[0]

    def run() -> Mapping[str, Any]:
        jax.block_until_ready(repeated(*operands))
        return {"products": num_repeats}

    return run
