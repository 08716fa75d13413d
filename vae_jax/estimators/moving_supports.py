"""Densities whose support moves with a parameter: the score of that parameter has another mean than zero."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float
from numpyro.distributions import constraints, transforms

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
        for part in _distributions_inside(q):
            yield from _support_ends(part)


def _distributions_inside(q: Any) -> Iterator[Any]:
    """The distributions that a distribution is made of, such as a mixture's list of components."""
    for field in vars(q).values():
        yield from filter(distributions.is_distribution, field if isinstance(field, list | tuple) else [field])


def _ends_of_transforms(q: Any) -> Iterator[tuple[str, str, Any]]:
    """The parameters of transforms that move an end of what they are applied to."""
    if not isinstance(q, dist.TransformedDistribution) or _is_normal(q.base_dist):
        return
    ends = _ends(q.base_dist.support)
    for transform in _elementary(q.transforms):
        for name, parameter in _moving(transform, ends):
            yield f"{name} of the transform", type(q).__name__, parameter
        ends = _images(transform, ends)


def _is_normal(q: Any) -> bool:
    return isinstance(distributions.base_distribution(q), _NORMALS)


_NORMALS = (
    dist.Normal,
    dist.MultivariateNormal,
    dist.LowRankMultivariateNormal,
    dist.CirculantNormal,
    dist.GaussianRandomWalk,
    dist.MatrixNormal,
)
"""Their tails are so thin that a transform's density vanishes at its ends, which may move."""
_INFINITE = (-np.inf, np.inf)
_SOMEWHERE = (np.nan,)
"""Ends of which only this is known: they are finite."""


def _ends(support: Any) -> tuple[Any, ...]:
    """The constant ends of a support, NaN for those that are traced."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if isinstance(support, _WHOLE_LINE):
        return _INFINITE
    bounds = [getattr(support, name) for name in ("lower_bound", "upper_bound") if hasattr(support, name)]
    if not bounds:
        return _SOMEWHERE
    ends = tuple(np.nan if isinstance(bound, Tracer) else np.asarray(bound) for bound in bounds)
    # A half-line has another end at infinity.
    return ends if len(ends) == 2 else (*ends, np.inf)


_WHOLE_LINE = (type(constraints.real), type(constraints.real_vector))


def _elementary(parts: Iterable[Any]) -> Iterator[Any]:
    """Transforms in the order of their application, out of those that hold others."""
    for part in parts:
        match part:
            case transforms.ComposeTransform():
                yield from _elementary(part.parts)
            case transforms.IndependentTransform():
                yield from _elementary([part.base_transform])
            case _:
                yield part


def _moving(transform: Any, ends: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """The parameters that move one of these ends, by name."""
    finite = [end for end in ends if not np.all(np.isinf(end))]
    if not finite:
        return
    if isinstance(transform, transforms.AffineTransform):
        yield "loc", transform.loc
        if any(np.any(end != 0) for end in finite):
            yield "scale", transform.scale
    elif isinstance(transform, transforms.PowerTransform):
        # Zero and one are powers of themselves.
        if any(np.any((end != 0) & (end != 1)) for end in finite):
            yield "exponent", transform.exponent
    elif any(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in jax.tree.leaves(transform)):
        yield "parameters", transform


def _images(transform: Any, ends: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where a transform puts these ends."""
    if isinstance(transform, transforms.AffineTransform):
        return tuple(end if np.all(np.isinf(end)) else _affine_image(transform, end) for end in ends)
    if isinstance(transform, transforms.PowerTransform) and isinstance(transform.exponent, Tracer):
        return tuple(end if np.all((end == 0) | (end == 1) | np.isinf(end)) else np.nan for end in ends)
    is_elementwise = transform.domain.event_dim == 0 and transform.codomain.event_dim == 0
    if is_elementwise and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(transform)):
        with jax.ensure_compile_time_eval():
            return tuple(np.asarray(transform(jnp.asarray(end, float))) for end in ends)
    is_infinite = all(np.all(np.isinf(end)) for end in ends)
    return _INFINITE if is_infinite and isinstance(transform.codomain, _WHOLE_LINE) else _SOMEWHERE


def _affine_image(transform: Any, end: Any) -> Any:
    loc, scale = transform.loc, transform.scale
    if isinstance(loc, Tracer):
        return np.nan
    # Zero stays at loc, whatever the scale.
    if isinstance(scale, Tracer):
        return np.where(end == 0, np.asarray(loc), np.nan)
    # By NumPy: within a compiled function JAX would trace it.
    return np.asarray(loc) + np.asarray(scale) * end


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
