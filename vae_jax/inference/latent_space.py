"""Latents with constraints as a vector without any, and distributions carried from the one to the other."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints

from vae_jax.bijections import bijection_to
from vae_jax.typing import Latents, Scalar, Vector


@dataclass(frozen=True, eq=False)
class Support:
    """Support of a latent: a constraint of NumPyro and the latent's shape, as in `Support(constraints.real, (3,))`.

    Where supports are expected, a constraint alone stands for a scalar. Compiled programs are kept for the same object,
    not for an equal one.

    Example:
        A vector of three probabilities has two numbers without constraints:

        >>> from numpyro.distributions import constraints
        >>> from vae_jax.inference import MeanFieldNormal, Support
        >>> MeanFieldNormal({"weights": Support(constraints.simplex, (3,)), "rate": constraints.positive}).space.size
        3
    """

    constraint: Any
    shape: tuple[int, ...] = ()


def is_support(node: object) -> bool:
    """Whether a node of a pytree is a support rather than a container of them."""
    return isinstance(node, Support | constraints.Constraint)


@dataclass(frozen=True, eq=False)
class Latent:
    """One latent and its bijection from numbers without constraints, which is `bijection_to`."""

    name: str
    constraint: Any
    shape: tuple[int, ...]
    transform: Any
    unconstrained_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of its numbers without constraints."""
        return math.prod(self.unconstrained_shape)

    @property
    def elementwise(self) -> Any:
        """The constraint of one element, where the elements are constrained one by one."""
        constraint: Any = self.constraint
        # Of the constraints, only those on vectors of independent elements have one.
        while hasattr(constraint, "base_constraint"):
            constraint = constraint.base_constraint
        return constraint

    @property
    def is_real(self) -> bool:
        """Whether it has no constraint at all."""
        return isinstance(self.elementwise, type(constraints.real))


class LatentSpace:
    """A pytree of latents and the vector [D] of all their numbers without constraints, in the order of the pytree.

    Args:
        supports: a pytree of `Support`, or of constraints for scalars.

    Raises:
        TypeError: a leaf is no constraint, or one without a bijection: a discrete one, say.
        ValueError: there is none, or its shape has too few dimensions.
    """

    def __init__(self, supports: Any) -> None:
        paths, self.structure = jax.tree.flatten_with_path(supports, is_leaf=is_support)
        if not paths:
            raise ValueError("supports must hold at least one latent, got none: give each latent a constraint")
        self.latents = [_latent(f"supports{jax.tree_util.keystr(path)}", leaf) for path, leaf in paths]

    @property
    def size(self) -> int:
        """D."""
        return sum(latent.size for latent in self.latents)

    @property
    def is_real(self) -> bool:
        """Whether no latent has a constraint."""
        return all(latent.is_real for latent in self.latents)

    def constrain(self, vector: Vector) -> Latents:
        """The latents at a vector."""
        pieces = self._pieces(vector)
        return self.structure.unflatten(
            [latent.transform(piece) for latent, piece in zip(self.latents, pieces, strict=True)]
        )

    def unconstrain(self, latents: Latents) -> Vector:
        """The vector of latents.

        Raises:
            ValueError: they have another structure or other shapes.
        """
        leaves = self.structure.flatten_up_to(latents)
        return jnp.concatenate([_unconstrained(*pair).reshape(-1) for pair in zip(self.latents, leaves, strict=True)])

    def log_determinant(self, vector: Vector) -> Scalar:
        """Log of the absolute determinant of the latents' derivative by the vector (nats)."""
        terms = [
            jnp.sum(latent.transform.log_abs_det_jacobian(piece, latent.transform(piece)))
            for latent, piece in zip(self.latents, self._pieces(vector), strict=True)
            if not latent.is_real
        ]
        return sum(terms, start=jnp.zeros((), vector.dtype))

    def by_latent(self, function: Callable[..., Any], *vectors: Vector) -> Any:
        """The pytree of what a function gives for each latent and its own pieces of some vectors."""
        pieces = [self._pieces(vector) for vector in vectors]
        return self.structure.unflatten([function(*each) for each in zip(self.latents, *pieces, strict=True)])

    def _pieces(self, vector: Vector) -> list[Array]:
        pieces, start = [], 0
        for latent in self.latents:
            pieces.append(vector[start : start + latent.size].reshape(latent.unconstrained_shape))
            start += latent.size
        return pieces


def _latent(name: str, leaf: Any) -> Latent:
    support = leaf if isinstance(leaf, Support) else Support(leaf)
    constraint, shape = support.constraint, tuple(support.shape)
    if not isinstance(constraint, constraints.Constraint):
        raise TypeError(
            f"{name} must be a constraint, got {type(constraint).__name__}: use one of "
            "numpyro.distributions.constraints"
        )
    kind = type(constraint).__name__.lstrip("_")
    if constraint.is_discrete:
        raise TypeError(f"{name} must be continuous, got {kind}: sum the latent out of the log joint")
    try:
        transform = bijection_to(constraint)
    except NotImplementedError:
        raise TypeError(f"{name} must have a bijection from the reals, got {kind}: use another constraint") from None
    if len(shape) < constraint.event_dim:
        raise ValueError(
            f"{name} must have a shape of {constraint.event_dim} dimensions at least, got {shape}: write "
            f"Support(constraints.{kind}, shape)"
        )
    return Latent(name, constraint, shape, transform, tuple(transform.inverse_shape(shape)))


def _unconstrained(latent: Latent, value: Any) -> Array:
    value = jnp.asarray(value, jnp.result_type(value, float))
    if value.shape != latent.shape:
        raise ValueError(f"{latent.name} must have a value of shape {latent.shape}, got {value.shape}: reshape it")
    return jnp.asarray(latent.transform.inv(value))


@jax.tree_util.register_pytree_node_class
class Pushforward:
    """The distribution of latents whose vector without constraints has a distribution of its own.

    A `vae_jax.typing.Distribution`: its draws have the structure of the latents, and its density counts the Jacobian.

    Args:
        base: a distribution of the vector [D].
        space: the latents.
    """

    batch_shape = ()
    has_rsample = True

    @property
    def supports(self) -> list[Any]:
        """The constraint of each array of a sample, in order."""
        return [latent.constraint for latent in self.space.latents]

    def __init__(self, base: Any, space: LatentSpace) -> None:
        self.base = base
        self.space = space

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws: the structure of the latents, each leaf [*sample_shape, ...]."""
        return self._carried(self.base.sample(key, sample_shape), sample_shape)

    def rsample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """The same, differentiable in the parameters."""
        return self._carried(self.base.rsample(key, sample_shape), sample_shape)

    def carry(self, draw: Vector, /) -> tuple[Latents, Scalar]:
        """The latents that a draw of the base becomes, with the log determinant (nats)."""
        return self.space.constrain(draw), self.space.log_determinant(draw)

    def uncarry(self, value: Latents, /) -> Vector:
        """The draw of the base that becomes a value, by the inverse."""
        return self.space.unconstrain(value)

    def log_prob(self, value: Latents) -> Any:
        """Log density (nats) of one value in the latents' own space.

        It inverts the bijection. Of a value that was rounded to the edge of its support it is NaN or infinite, so that
        bounds evaluate the draw of the base instead.
        """
        vector = self.space.unconstrain(value)
        return self.base.log_prob(vector) - self.space.log_determinant(vector)

    def entropy(self) -> Any:
        """The base's entropy (nats), known only where no latent has a constraint."""
        if not self.space.is_real:
            raise NotImplementedError("latents with constraints have no entropy in closed form")
        return self.base.entropy()

    @property
    def mean(self) -> Latents:
        """The mean, known only where no latent has a constraint."""
        if not self.space.is_real:
            raise NotImplementedError("latents with constraints have no mean in closed form")
        return self.space.constrain(self.base.mean)

    def _carried(self, vectors: Array, sample_shape: tuple[int, ...]) -> Any:
        flat = jax.vmap(self.space.constrain)(vectors.reshape(-1, self.space.size))
        return jax.tree.map(lambda leaf: leaf.reshape(*sample_shape, *leaf.shape[1:]), flat)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.base,), self.space

    @classmethod
    def tree_unflatten(cls, space: LatentSpace, children: Any) -> "Pushforward":
        return cls(children[0], space)


def normal_latent(latent: Latent, loc: Array, scale: Array) -> Any:
    """A latent whose numbers without constraints are independent normals, as a distribution of NumPyro's."""
    if latent.is_real:
        leaf: Any = dist.Normal(loc, scale)
    elif isinstance(latent.elementwise, type(constraints.positive) | type(constraints.nonnegative)):
        leaf = dist.LogNormal(loc, scale)
    else:
        leaf = dist.TransformedDistribution(dist.Normal(loc, scale), latent.transform)
    return leaf.to_event(len(leaf.batch_shape)) if leaf.batch_shape else leaf
