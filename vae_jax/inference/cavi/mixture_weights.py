"""The probabilities of a mixture's components: given, or a factor of their own.

A component of zero prior weight is absent: it takes no events and adds nothing to any bound. Mixtures with different
numbers of components have one shape if absent ones make up the difference, and so need one program, see `padded`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, Int

from vae_jax.typing import PRNGKey, Scalar

ABSENT = -1e30
"""The log of an absent component's probability: finite, so that its product with no events is zero."""


class GivenWeights(NamedTuple):
    """Probabilities of a mixture's components that are known. They have no factor: its state is None.

    Example:
        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import GivenWeights
        >>> weights = GivenWeights(jnp.array([0.75, 0.25]))
        >>> weights.mean(None).tolist(), weights.divergence(None).item()
        ([0.75, 0.25], 0.0)
    """

    probs: Float[Array, " K"]

    @property
    def by_component(self) -> Float[Array, " K"]:
        """Components are exchangeable where this is equal."""
        return self.probs

    def update(self, sizes: Float[Array, " K"]) -> None:
        """There is nothing to update."""
        del sizes

    def expected_log(self, factor: Any) -> Float[Array, " K"]:
        """The logs of the probabilities."""
        del factor
        present = self.probs > 0
        return jnp.where(present, jnp.log(jnp.where(present, self.probs, 1)), ABSENT)

    def mean(self, factor: Any) -> Float[Array, " K"]:
        """The probabilities themselves."""
        del factor
        return self.probs

    def divergence(self, factor: Any) -> Scalar:
        """Zero."""
        del factor
        return jnp.zeros((), self.probs.dtype)

    def posterior(self, factor: Any) -> dict[str, Any]:
        """No latents."""
        del factor
        return {}

    def draw(self, key: PRNGKey) -> Float[Array, " K"]:
        """The probabilities themselves."""
        del key
        return self.probs


class DirichletWeights(NamedTuple):
    """Probabilities of a mixture's components under a Dirichlet prior. The factor's state is its concentration [K].

    Example:
        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import DirichletWeights
        >>> weights = DirichletWeights(jnp.ones(2))
        >>> factor = weights.update(jnp.array([8.0, 2.0]))
        >>> factor.tolist(), weights.mean(factor).tolist()
        ([9.0, 3.0], [0.75, 0.25])
    """

    concentration: Float[Array, " K"]

    @property
    def by_component(self) -> Float[Array, " K"]:
        """Components are exchangeable where this is equal."""
        return self.concentration

    def update(self, sizes: Float[Array, " K"]) -> Float[Array, " K"]:
        """The optimal factor, the prior's concentration plus the weighted counts."""
        return self.concentration + sizes

    def expected_log(self, factor: Any) -> Float[Array, " K"]:
        """The means of the logs of the probabilities."""
        present = self.concentration > 0
        return jnp.where(present, digamma(jnp.where(present, factor, 1)) - digamma(factor.sum()), ABSENT)

    def mean(self, factor: Any) -> Float[Array, " K"]:
        """The means of the probabilities."""
        return factor / factor.sum()

    def divergence(self, factor: Any) -> Scalar:
        """The Kullback-Leibler divergence from the prior (nats)."""
        present = self.concentration > 0
        prior, posterior = (jnp.where(present, values, 1) for values in (self.concentration, factor))
        change = (factor - self.concentration) * (digamma(posterior) - digamma(factor.sum()))
        log_normalizers = gammaln(factor.sum()) - gammaln(self.concentration.sum())
        return log_normalizers + (change - gammaln(posterior) + gammaln(prior)).sum()

    def posterior(self, factor: Any) -> dict[str, Any]:
        """The factor by its latent's name."""
        return {"weights": dist.Dirichlet(factor)}

    def draw(self, key: PRNGKey) -> Float[Array, " K"]:
        """Probabilities from the prior."""
        return jax.random.dirichlet(key, self.concentration)


MixtureWeights = GivenWeights | DirichletWeights


def num_present(weights: MixtureWeights) -> Int[Array, ""]:
    """The number of components that are not absent."""
    return (weights.by_component > 0).sum()


def padded(weights: MixtureWeights, num_components: int) -> MixtureWeights:
    """The same weights with absent components at the end, `num_components` in all."""
    num_absent = num_components - weights.by_component.shape[0]
    return jax.tree.map(lambda leaf: jnp.pad(leaf, (0, num_absent)), weights)


def check_weights(weights: MixtureWeights, num_components: int) -> None:
    """Raises ValueError for weights that are not one a component, not positive, or given and not of sum one."""
    values = np.asarray(weights.by_component)
    if values.shape != (num_components,) or not ((values > 0) & np.isfinite(values)).all():
        raise ValueError(f"weights must be {num_components} positive numbers, got {values}: give one a component")
    if isinstance(weights, GivenWeights) and not math.isclose(values.sum(), 1, rel_tol=1e-5):
        raise ValueError(f"weights must sum to 1, got {values.sum():g}: divide by the sum")


def order_by_size(weights: MixtureWeights, sizes: Float[Array, " K"], loc: Float[Array, "K D"]) -> Int[Array, " K"]:
    """The canonical order of components: by falling size, equal ones by place.

    Only components of the same prior weight change places, for the model tells the others apart.
    """
    prior = weights.by_component
    # The last key counts first.
    sorted_components = jnp.lexsort((*reversed(list(loc.T)), -sizes, prior))
    sorted_places = jnp.argsort(prior, stable=True)
    return jnp.zeros_like(sorted_components).at[sorted_places].set(sorted_components)


def log_num_labellings(num_components: int) -> float:
    """Computes log K!, the term that is added to the bound to compare numbers of exchangeable components.

    Each of the K! orders of the labels is an optimum of its own. The equal mixture of all orders is a better q. Where
    they do not overlap, its bound is higher by exactly log K!. Components that coincide, such as empty ones, gain less.

    Args:
        num_components: K.

    Returns:
        log K! (nats).

    Example:
        >>> import math
        >>> from vae_jax.inference.cavi import log_num_labellings
        >>> round(math.exp(log_num_labellings(4)))
        24

    Reference: Bishop (2006), section 10.2.4.
    """
    return math.lgamma(num_components + 1)
