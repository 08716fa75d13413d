"""Distributions that are others carried by a fixed bijection, evaluated without the bijection's inverse.

The density of a carried draw is the base's, less the log determinant of the bijection. A draw that is rounded to its
dtype and inverted has another preimage, or none: a share of 1 - 1e-9 becomes 1, whose logit is infinite. So bounds keep
the draw of the base.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.core import Tracer

from vae_jax import distributions
from vae_jax.bijections import stable
from vae_jax.typing import Distribution, Distributions, Latents, Scalar

Carry: TypeAlias = Callable[[Any], tuple[Any, Scalar]]
"""A draw of the base to the draw that it becomes, with the log of the absolute determinant there (nats)."""


@runtime_checkable
class Carried(Protocol):
    """A distribution whose draws are those of its `base`, carried by a bijection without parameters."""

    @property
    def base(self) -> Distribution: ...

    def carry(self, draw: Any, /) -> tuple[Any, Scalar]:
        """The draw that a draw of the base becomes, with the log determinant (nats)."""
        ...

    def uncarry(self, value: Any, /) -> Any:
        """The draw of the base that becomes a value, by the inverse."""
        ...


class Source(NamedTuple):
    """What the draws of some distributions are made of."""

    base: Distributions
    """Distributions with the structure of the carried ones."""
    carry: Carry
    """Draws of `base` to samples of the carried distributions, with the sum of the log determinants (nats)."""
    uncarry: Callable[[Latents], Latents]
    """Samples of the carried distributions to draws of `base`, by the inverses; for samples from elsewhere."""


def source_of(q: Distributions) -> Source:
    """The base distributions that the draws of `q` come from, and the way from a draw of theirs to one of `q`.

    Distributions of NumPyro that are transformed by a bijection without parameters have a base, as have those with the
    methods of `Carried`. Any other is its own base.

    Args:
        q: a distribution or a pytree of independent ones.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpyro.distributions as dist
        >>> from vae_jax.carried_draws import source_of
        >>> base, carry, _ = source_of({"rate": dist.LogNormal(0.0, 1.0), "shift": dist.Normal(0.0, 1.0)})
        >>> {name: type(leaf).__name__ for name, leaf in base.items()}
        {'rate': 'Normal', 'shift': 'Normal'}
        >>> sample, log_determinant = carry({"rate": jnp.array(0.5), "shift": jnp.array(2.0)})
        >>> f"{sample['rate']:.2f} {sample['shift']:.2f} {log_determinant:.2f}"  # d exp(u) / du = exp(u)
        '1.65 2.00 0.50'
    """
    sources = [_source(leaf) for _, leaf in distributions.named_leaves(q)]
    if all(source.carry is _kept for source in sources):
        return Source(q, _kept, _same)
    structure = jax.tree.structure(q, is_leaf=distributions.is_distribution)

    def carry(draw: Latents) -> tuple[Latents, Scalar]:
        pieces = structure.flatten_up_to(draw)
        pairs = [source.carry(piece) for source, piece in zip(sources, pieces, strict=True)]
        return structure.unflatten([sample for sample, _ in pairs]), jnp.stack([log_det for _, log_det in pairs]).sum()

    def uncarry(sample: Latents) -> Latents:
        pieces = structure.flatten_up_to(sample)
        return structure.unflatten([source.uncarry(piece) for source, piece in zip(sources, pieces, strict=True)])

    return Source(structure.unflatten([source.base for source in sources]), carry, uncarry)


def _source(leaf: Any) -> Source:
    itself = Source(leaf, _kept, _same)
    match leaf:
        case dist.Independent():
            inner = _source(leaf.base_dist)
            reshaped = inner._replace(base=inner.base.to_event(leaf.reinterpreted_batch_ndims))
            return itself if inner.carry is _kept else reshaped
        case dist.ExpandedDistribution():
            inner = _source(leaf.base_dist)
            return itself if inner.carry is _kept else inner._replace(base=inner.base.expand(leaf.batch_shape))
        case dist.TransformedDistribution():
            # A traced array may be a parameter, whose gradient a score function would not see.
            if any(isinstance(part, Tracer) for part in jax.tree.leaves(leaf.transforms)):
                return itself
            transforms = [stable(transform) for transform in leaf.transforms]
            return Source(leaf.base_dist, partial(_transformed, transforms), partial(_inverted, transforms))
        case Carried():
            return Source(leaf.base, leaf.carry, leaf.uncarry)
    return itself


def _kept(draw: Any) -> tuple[Any, Scalar]:
    return draw, jnp.zeros(())


def _same(sample: Any) -> Any:
    return sample


def _inverted(transforms: list[Any], sample: Any) -> Any:
    with jax.numpy_rank_promotion("allow"):
        for transform in reversed(transforms):
            sample = transform.inv(sample)
    return sample


def _transformed(transforms: list[Any], draw: Any) -> tuple[Any, Scalar]:
    log_determinant = jnp.zeros((), jnp.result_type(draw))
    # NumPyro adds arrays of different ranks.
    with jax.numpy_rank_promotion("allow"):
        for transform in transforms:
            carried = transform(draw)
            log_determinant += jnp.sum(transform.log_abs_det_jacobian(draw, carried))
            draw = carried
    return draw, log_determinant
