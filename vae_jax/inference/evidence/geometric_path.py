"""The path from a proposal to a log joint, over vectors without constraints."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from vae_jax import distributions
from vae_jax.bounds.log_weights import carried_log_weight
from vae_jax.carried_draws import source_of
from vae_jax.inference.latent_space import LatentSpace, Support
from vae_jax.typing import Distributions, Latents, LogDensity, PRNGKey, Scalar, Vector


class GeometricPath(NamedTuple):
    """Densities from a proposal's, at the temperature 0, to the joint, at 1, over one vector without constraints."""

    constrain: Callable[[Vector], Latents]
    """The latents of a vector."""
    unconstrain: Callable[[Latents], Vector]
    """The vector of latents."""
    flatten: Callable[[Latents], Vector]
    """The vector of a draw of the distributions that the proposal's draws are made of."""
    log_start: Callable[[Vector], Scalar]
    """log q of the vector, with the bijection's volume (nats)."""
    log_weight: Callable[[Vector], Scalar]
    """log p(x, z) - log q(z) (nats), in which the volume cancels."""

    def log_density(self, temperature: Scalar, vector: Vector) -> Scalar:
        """(1 - t) log q + t log p (nats)."""
        return self.log_start(vector) + temperature * self.log_weight(vector)


def path_between(q: Distributions, log_joint: LogDensity) -> GeometricPath:
    """The geometric path from `q` to a joint density, where both are positive.

    Supports become unconstrained by `bijection_to`. A distribution that does not tell its support has to be
    positive on all real numbers.

    Args:
        q: a distribution or a pytree of independent ones, continuous.
        log_joint: one sample to log p(x, z) (nats).

    Raises:
        TypeError: a distribution is discrete, or no bijection onto its support is known.
    """
    base, carry, uncarry = source_of(q)
    supports = [_supports(name, leaf) for name, leaf in distributions.named_leaves(base)]
    space = LatentSpace(distributions.unflatten(base, supports))
    weight, _ = carried_log_weight(log_joint, q)

    def constrain(vector: Vector) -> Latents:
        return carry(space.constrain(vector))[0]

    def unconstrain(latents: Latents) -> Vector:
        return space.unconstrain(uncarry(latents))

    def log_start(vector: Vector) -> Scalar:
        return distributions.log_prob(base, space.constrain(vector)) + space.log_determinant(vector)

    def log_weight(vector: Vector) -> Scalar:
        return jnp.asarray(weight(space.constrain(vector), base))

    return GeometricPath(constrain, unconstrain, space.unconstrain, log_start, log_weight)


def _supports(name: str, leaf: Any) -> Any:
    """The support of each part of a distribution's draws."""
    support = getattr(leaf, "support", None)
    if support is None:
        one = jax.eval_shape(lambda key: leaf.sample(key), _SOME_KEY)
        return jax.tree.map(lambda part: Support(constraints.real, part.shape), one)
    if support.is_discrete:
        raise TypeError(
            f"{name} must be continuous to be annealed, got {type(leaf).__name__}: use importance_sampling, "
            "which takes discrete latents"
        )
    return Support(support, leaf.event_shape)


_SOME_KEY: PRNGKey = jax.eval_shape(lambda: jax.random.key(0))
