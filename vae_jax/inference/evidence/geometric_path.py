"""The path from a proposal to a log joint, over vectors without constraints."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import constraints

from vae_jax import distributions
from vae_jax.inference.latent_space import LatentSpace, Pushforward, Support
from vae_jax.typing import Distributions, Latents, LogDensity, PRNGKey, Scalar, Vector


class GeometricPath(NamedTuple):
    """Densities from a proposal's, at the temperature 0, to the joint, at 1, over one vector without constraints."""

    constrain: Callable[[Vector], Latents]
    """The latents of a vector."""
    unconstrain: Callable[[Latents], Vector]
    """The vector of latents."""
    log_start: Callable[[Vector], Scalar]
    """log q of the vector, with the bijection's volume (nats)."""
    log_weight: Callable[[Vector], Scalar]
    """log p(x, z) - log q(z) (nats), in which the volume cancels."""

    def log_density(self, temperature: Scalar, vector: Vector) -> Scalar:
        """(1 - t) log q + t log p (nats)."""
        return self.log_start(vector) + temperature * self.log_weight(vector)


def path_between(q: Distributions, log_joint: LogDensity) -> GeometricPath:
    """The geometric path from `q` to a joint density, where both are positive.

    Supports become unconstrained by NumPyro's `biject_to`. A distribution that does not tell its support has to be
    positive on all real numbers.

    Args:
        q: a distribution or a pytree of independent ones, continuous.
        log_joint: one sample to log p(x, z) (nats).

    Raises:
        TypeError: a distribution is discrete, or no bijection onto its support is known.
    """
    spaces = [_space(name, leaf) for name, leaf in distributions.named_leaves(q)]
    structure = jax.tree.structure(q, is_leaf=distributions.is_distribution)
    ends = [sum(space.size for space in spaces[: place + 1]) for place in range(len(spaces))]

    def pieces(vector: Vector) -> list[Array]:
        return [vector[end - space.size : end] for space, end in zip(spaces, ends, strict=True)]

    def constrain(vector: Vector) -> Latents:
        return structure.unflatten(
            [space.constrain(piece) for space, piece in zip(spaces, pieces(vector), strict=True)]
        )

    def unconstrain(latents: Latents) -> Vector:
        leaves = structure.flatten_up_to(latents)
        return jnp.concatenate([space.unconstrain(leaf) for space, leaf in zip(spaces, leaves, strict=True)])

    def log_start(vector: Vector) -> Scalar:
        volumes = (space.log_determinant(piece) for space, piece in zip(spaces, pieces(vector), strict=True))
        return sum(volumes, start=distributions.log_prob(q, constrain(vector)))

    def log_weight(vector: Vector) -> Scalar:
        latents = constrain(vector)
        return jnp.asarray(log_joint(latents) - distributions.log_prob(q, latents))

    return GeometricPath(constrain, unconstrain, log_start, log_weight)


def _space(name: str, leaf: Any) -> LatentSpace:
    if isinstance(leaf, Pushforward):
        return leaf.space
    support = getattr(leaf, "support", None)
    if support is None:
        one = jax.eval_shape(lambda key: leaf.sample(key), _SOME_KEY)
        return LatentSpace(jax.tree.map(lambda part: Support(constraints.real, part.shape), one))
    if support.is_discrete:
        raise TypeError(
            f"{name} must be continuous to be annealed, got {type(leaf).__name__}: use importance_sampling, "
            "which takes discrete latents"
        )
    return LatentSpace(Support(support, leaf.event_shape))


_SOME_KEY: PRNGKey = jax.eval_shape(lambda: jax.random.key(0))
