"""Densities whose support moves with a parameter: the score of that parameter has another mean than zero."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform

from vae_jax import distributions
from vae_jax.typing import Distributions, Scalar

_ENDS = ("low", "high")
"""The names that NumPyro's distributions give to the ends of their support."""


def fixed_support(q: Distributions) -> Scalar | float:
    """Zero, whose derivative by a parameter that the support of `q` moves with raises TypeError.

    It is added to what takes scores of `q`, or leaves them out because their mean is zero: neither knows of the mass
    that comes and goes at the ends. Derivatives by other parameters of such distributions are taken.
    """
    ends = {
        f"{place} of {name}, a {family}": end
        for name, leaf in distributions.named_leaves(q)
        for place, family, end in _support_ends(leaf)
    }
    return _without_score(tuple(ends), tuple(ends.values())) if ends else 0.0


def _support_ends(q: Any) -> Iterator[tuple[str, str, Any]]:
    """The parameters of a distribution, and of those inside it, that its support moves with."""
    family = type(q).__name__
    if isinstance(q, dist.Delta):
        yield "v", family, q.v
    elif isinstance(q, dist.Pareto):
        yield "scale", family, q.scale
    else:
        yield from ((end, family, getattr(q, end)) for end in _ENDS if hasattr(q, end))
        yield from _ends_of_transforms(q)
        for part in vars(q).values():
            if distributions.is_distribution(part):
                yield from _support_ends(part)


def _ends_of_transforms(q: Any) -> Iterator[tuple[str, str, Any]]:
    if not isinstance(q, dist.TransformedDistribution) or q.base_dist.support in _WHOLE_LINE:
        return
    for transform in q.transforms:
        if isinstance(transform, AffineTransform):
            yield "loc of the transform", type(q).__name__, transform.loc
            if isinstance(q.base_dist.support, type(constraints.unit_interval)):
                yield "scale of the transform", type(q).__name__, transform.scale


_WHOLE_LINE = (constraints.real, constraints.real_vector)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _without_score(names: tuple[str, ...], ends: tuple[Any, ...]) -> Float[Array, ""]:
    """Zero, whose derivative is refused: a silent one would be wrong."""
    return _zero(ends)


@partial(_without_score.defjvp, symbolic_zeros=True)
def _refuse_score(names: tuple[str, ...], primals: Any, tangents: Any) -> Any:
    for name, tangent in zip(names, tangents[0], strict=True):
        if not all(isinstance(leaf, SymbolicZero) for leaf in jax.tree.leaves(tangent, is_leaf=_is_zero)):
            raise TypeError(
                f"q must have a support that its parameters do not move, got a gradient by the {name}: use pathwise, "
                "or keep it constant"
            )
    zero = _zero(*primals)
    return zero, zero


def _zero(ends: tuple[Any, ...]) -> Float[Array, ""]:
    # In the type of the densities, which a wider one would promote.
    return jnp.zeros((), jnp.result_type(*jax.tree.leaves(ends), float))


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero)
