"""A check that an objective has a derivative along its samples."""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from vae_jax import distributions
from vae_jax.typing import Distributions, Latents, Objective


def check_differentiable(
    objective: Objective,
    samples: Latents,
    q: Distributions,
    *,
    instead: str = "score_function",
    what: str = "objective",
) -> None:
    """Refuses an objective that uses a latent but has no derivative along it: its gradient would be silently wrong.

    Such are a comparison, rounding, a conversion to integers or a stopped gradient. What is only sometimes flat, as a
    ReLU, has a derivative. Nothing is computed: the objective of one sample is traced. So a latent that is used both
    with and without a derivative passes, as do a vector's elements without one beside others with one.

    Args:
        objective: a function of one sample and `q` that returns a scalar.
        samples: with the structure of `q`, [S, ...] each.
        q: the distributions, whose names messages use.
        instead: the estimator to use.
        what: the name of the objective in messages.

    Raises:
        TypeError: naming the latent.
    """
    one = jax.tree.map(lambda leaf: leaf[0], samples)
    leaves, structure = jax.tree.flatten(one)
    names = _names(q, one)

    def value(*leaves: Any) -> Any:
        return objective(structure.unflatten(leaves), q)

    def slope(leaves: Any, steps: Any) -> Any:
        return jax.jvp(value, leaves, steps)[1]

    # What is not a scalar array is refused, in words, where the values are made.
    result = jax.eval_shape(value, *leaves)
    if not hasattr(result, "dtype"):
        return
    used = _dependences(jax.make_jaxpr(value)(*leaves).jaxpr, range(len(leaves)))
    moved = (
        _movements(slope, leaves, f"{what} must be differentiable in {', '.join(names)}", instead)
        if jnp.issubdtype(result.dtype, jnp.floating)
        else set()
    )
    for number in sorted(used - moved):
        raise TypeError(
            f"{what} must be differentiable in {names[number]}, got one that uses it without a derivative (a "
            f"comparison, rounding or a stopped gradient): use {instead} instead"
        )


def _names(q: Distributions, sample: Any) -> list[str]:
    """Names of the sample's leaves: a distribution's own, and the path in it where its samples are pytrees."""
    structure = jax.tree.structure(q, is_leaf=distributions.is_distribution)
    samples = structure.flatten_up_to(sample)
    return [
        name + jax.tree_util.keystr(path)
        for (name, _), of_leaf in zip(distributions.named_leaves(q), samples, strict=True)
        for path, _ in jax.tree.leaves_with_path(of_leaf)
    ]


def _movements(slope: Any, leaves: list[Any], wanted: str, instead: str) -> set[int]:
    """The numbers of the leaves that the derivative depends on."""
    try:
        jaxpr = jax.make_jaxpr(slope)(tuple(leaves), tuple(leaves)).jaxpr
    except ValueError as error:
        # JAX's own refusal, as of a callback into Python.
        raise TypeError(f"{wanted}, got one that JAX cannot differentiate ({error}): use {instead} instead") from error
    return {number - len(leaves) for number in _dependences(jaxpr, range(len(leaves), 2 * len(leaves)))}


def _dependences(jaxpr: Jaxpr, inputs: Collection[int]) -> set[int]:
    """The numbers of those inputs that reach the output."""
    arriving = [{number} if number in inputs else set() for number in range(len(jaxpr.invars))]
    return set().union(*_reaching(jaxpr, arriving))


def _reaching(jaxpr: Jaxpr, arriving: Sequence[set[int]]) -> list[set[int]]:
    """Inputs that reach each output, from those that arrive at each input."""
    known: dict[Any, set[int]] = dict(zip(jaxpr.invars, arriving, strict=True))

    def of(variables: Sequence[Any]) -> list[set[int]]:
        # A literal has a value and depends on nothing.
        return [set() if hasattr(variable, "val") else known.get(variable, set()) for variable in variables]

    for equation in jaxpr.eqns:
        inputs = of(equation.invars)
        called = equation.params.get("jaxpr")
        if equation.primitive.name == "jit" and isinstance(called, ClosedJaxpr):
            outputs = _reaching(called.jaxpr, inputs)
        else:
            outputs = [set().union(*inputs)] * len(equation.outvars)
        known |= zip(equation.outvars, outputs, strict=True)
    return of(jaxpr.outvars)
