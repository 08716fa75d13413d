"""The updates and the bound of mixtures whose log responsibilities are a product of features and coefficients.

With features f_n of event n and coefficients C_k, expectations under the factors of component k,

    log r_nk = C_k . f_n + constant_n,

and the factors' optima need of the data the sums over n of r_nk f_n alone. The bound is

    sum_nk r_nk (C_k . f_n - log r_nk) + a constant of the data - KL(q(parameters) || p(parameters)).
"""

import abc
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vae_jax.inference.cavi.component_seeding import labels_by_size, plus_plus_labels
from vae_jax.inference.cavi.coordinate_ascent import StepInfo
from vae_jax.inference.cavi.mixture_weights import (
    DirichletWeights,
    MixtureWeights,
    check_weights,
    num_present,
    order_by_size,
)
from vae_jax.inference.cavi.optimal_assignment import assign, product
from vae_jax.typing import PRNGKey, Scalar


class ConjugateMixture(abc.ABC):
    """Base of the mixtures: a `ConjugateModel` made of coefficients, optima and a divergence.

    A mixture is a named tuple of its hyperparameters, of which `weights` is one. Its states are named tuples of the
    factors of the parameters, with `loc` [K, D] among them. The factor of the labels is optimal given a state, see
    `responsibilities`.
    """

    weights: Any
    """`MixtureWeights`."""

    def init(self, key: PRNGKey, data: Any) -> Any:
        """The factors of a hard assignment to k-means++ seeds, the larger clusters to the larger prior weights."""
        labels = plus_plus_labels(key, self._seeding_points(data), num_present(self.weights))
        prior = self.weights.by_component
        labels = labels_by_size(labels, prior)
        return self.update(jax.nn.one_hot(labels, prior.shape[0], axis=0, dtype=data.features.dtype), data)

    def step(self, state: Any, data: Any) -> tuple[Any, StepInfo]:
        """q(Z), then all other factors, which do not depend on each other given q(Z); one pass over the data.

        Before the second update the bound is that of q(Z) at its optimum, sum_n log sum_k exp(C_k . f_n) and the terms
        outside. The update changes C and the divergences alone, so that no second pass is needed.
        """
        coefficients = self._coefficients(state, data)
        sums, log_normalizer = assign(coefficients, data.features)
        chex.assert_equal_shape([sums, coefficients])
        updated = self._optimum(sums, data)
        gain = (sums * (self._coefficients(updated, data) - coefficients)).sum()
        return updated, StepInfo(log_normalizer + gain + self._constant(data) - self._divergence(updated))

    def update(self, responsibilities: Float[Array, "K N"], data: Any) -> Any:
        """The factors of the parameters that are optimal given q(Z)."""
        return self._optimum(product(responsibilities, data.features.T), data)

    def responsibilities(self, state: Any, data: Any) -> Float[Array, "K N"]:
        """q(Z_n = k), optimal given the other factors."""
        return jax.nn.softmax(product(self._coefficients(state, data), data.features), axis=0)

    def elbo(self, state: Any, responsibilities: Float[Array, "K N"], data: Any) -> Scalar:
        """The exact bound (nats) of any factors, optimal or not."""
        logits = product(self._coefficients(state, data), data.features)
        assigned = (responsibilities * logits).sum() + entr(responsibilities).sum()
        return assigned + self._constant(data) - self._divergence(state)

    def canonical(self, state: Any) -> Any:
        """Components by falling size, equal ones by place; only those with the same prior weight change places."""
        order = order_by_size(self.weights, self._growing_with_size(state), state.loc)
        return jax.tree.map(lambda leaf: leaf[order], state)

    @abc.abstractmethod
    def component_sizes(self, state: Any) -> Float[Array, " K"]:
        """The expected number of events of each component, by what its factor has gained over the prior.

        What rounding leaves of an empty component may be below zero.
        """

    @abc.abstractmethod
    def _seeding_points(self, data: Any) -> Float[Array, "F N"]:
        """Points whose distances are those between events, for the seeds to start from."""

    @abc.abstractmethod
    def _optimum(self, sums: Float[Array, "K F"], data: Any) -> Any:
        """The factors that are optimal given the features' sums weighted by the responsibilities."""

    @abc.abstractmethod
    def _coefficients(self, state: Any, data: Any) -> Float[Array, "K F"]:
        """C_k."""

    @abc.abstractmethod
    def _divergence(self, state: Any) -> Scalar:
        """The KL divergence of all parameters' factors from their priors (nats)."""

    @abc.abstractmethod
    def _growing_with_size(self, state: Any) -> Float[Array, " K"]:
        """A parameter of each component's factor that grows with its number of events."""

    def _constant(self, data: Any) -> Scalar | float:
        """The bound's terms that depend on no factor (nats)."""
        del data
        return 0.0


def check_num_components(num_components: int, num_events: int, noun: str) -> None:
    """Raises ValueError for a number of components that is not in 1..N."""
    if not 1 <= num_components <= num_events:
        raise ValueError(f"num_components must be from 1 to the {num_events} {noun}, got {num_components}: change it")


def prior_place(prior_loc: ArrayLike | None, centre: Float[Array, " D"]) -> Float[Array, " D"]:
    """The prior mean of the components' places, by default the positions' mean.

    Raises:
        ValueError: it is not one finite number a dimension.
    """
    loc = centre if prior_loc is None else jnp.asarray(prior_loc, centre.dtype)
    check_place(loc, len(centre))
    return loc


def check_place(loc: ArrayLike, num_dimensions: int) -> None:
    """Raises ValueError for a prior place that is not one finite number a dimension."""
    if np.shape(loc) != (num_dimensions,) or not np.isfinite(loc).all():
        raise ValueError(f"prior_loc must be {num_dimensions} finite numbers, got {loc}: one a dimension")


def prior_weights(weights: MixtureWeights | None, num_components: int, dtype: Any) -> MixtureWeights:
    """The weights in the data's type, by default Dirichlet(1, ..., 1).

    Raises:
        ValueError: they are not one a component, not positive, or given and not of sum one.
    """
    given = DirichletWeights(jnp.ones(num_components)) if weights is None else weights
    prior: MixtureWeights = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), given)
    check_weights(prior, num_components)
    return prior
