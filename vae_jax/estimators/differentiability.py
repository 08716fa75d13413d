"""Whether an objective has a derivative along its samples at all."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from vae_jax import distributions
from vae_jax.typing import Distributions, Latents, Objective


def check_differentiable(objective: Objective, samples: Latents, q: Distributions) -> None:
    """Refuses an objective that uses a latent but has no derivative along it: its gradient would be silently wrong.

    Such are a comparison, rounding, a conversion to integers or a stopped gradient. What is only sometimes flat, as a
    ReLU, has a derivative. Nothing is computed: the objective of one sample is traced.

    Args:
        objective: one sample and `q` to a scalar.
        samples: with the structure of `q`, [S, ...] each.
        q: the distributions, whose names messages use.

    Raises:
        TypeError: naming the latent.
    """
    one = jax.tree.map(lambda leaf: leaf[0], samples)
    leaves, structure = jax.tree.flatten(one)
    names = [name for name, _ in distributions.named_leaves(q)]

    def value(*leaves: Any) -> Any:
        return objective(structure.unflatten(leaves), q)

    def slope(leaves: Any, steps: Any) -> Any:
        return jax.jvp(value, leaves, steps)[1]

    # What is not a scalar array is refused, in words, where the values are made.
    result = jax.eval_shape(value, *leaves)
    if not hasattr(result, "dtype"):
        return
    used = _dependences(jax.make_jaxpr(value)(*leaves).jaxpr, range(len(leaves)))
    moved = _movements(slope, leaves) if jnp.issubdtype(result.dtype, jnp.floating) else set()
    for number in sorted(used - moved):
        raise TypeError(
            f"objective must be differentiable in {names[number]}, got one that uses it without a derivative (a "
            "comparison, rounding or a stopped gradient): use score_function instead"
        )


def _movements(slope: Any, leaves: list[Any]) -> set[int]:
    """The numbers of the leaves that the derivative depends on."""
    try:
        jaxpr = jax.make_jaxpr(slope)(tuple(leaves), tuple(leaves)).jaxpr
    except ValueError as error:
        # JAX's own refusal, as of a callback into Python.
        raise TypeError(
            f"objective must be differentiable in the samples, got one that JAX cannot differentiate ({error}): use "
            "score_function instead"
        ) from error
    return {number - len(leaves) for number in _dependences(jaxpr, range(len(leaves), 2 * len(leaves)))}


def _dependences(jaxpr: Jaxpr, inputs: Collection[int]) -> set[int]:
    """The numbers of those inputs that reach the output."""
    reaching: dict[Any, set[int]] = {jaxpr.invars[number]: {number} for number in inputs}
    for equation in jaxpr.eqns:
        reached = set().union(*(reaching.get(var, set()) for var in equation.invars if not hasattr(var, "val")))
        if reached:
            reaching |= dict.fromkeys(equation.outvars, reached)
    return set().union(*(reaching.get(var, set()) for var in jaxpr.outvars if not hasattr(var, "val")))
