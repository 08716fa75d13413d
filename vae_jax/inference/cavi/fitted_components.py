"""A fitted mixture's components, each with its errors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vae_jax.inference.cavi.conjugate_mixture import ConjugateMixture
from vae_jax.inference.cavi.gaussian_poisson_mixture import GaussianPoissonFactors, GaussianPoissonMixture
from vae_jax.inference.cavi.mixture_weights import DirichletWeights, MixtureWeights
from vae_jax.inference.cavi.normal_wishart_mixture import NormalWishartFactors, NormalWishartMixture

EMPTY_BELOW = 0.5
"""Expected events. A component with fewer is at its prior, or close to it, and says nothing of the data."""


@dataclass(frozen=True)
class Component:
    """One component of a fitted mixture, with means and standard deviations under q.

    The standard deviations are too small, because the factors of q are independent.
    """

    number: int
    """Number of the component in the canonical order, from 1."""
    num_events: float
    """The expected number of events, sum_n r_nk."""
    weight: float
    weight_std: float
    """Zero where the weights are given."""
    loc: tuple[float, ...]
    loc_std: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    """Covariance of events about the place: the inverse of the expected precision."""
    rate: float | None = None
    """The expected count of an event, if the model has counts."""
    rate_std: float | None = None
    dispersion: float | None = None
    """The variance of its events' counts over their mean. A Poisson's is 1."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no events."""
        return self.num_events < EMPTY_BELOW


def components(
    model: GaussianPoissonMixture | NormalWishartMixture,
    state: Any,
    responsibilities: Float[Array | np.ndarray, "K N"],
    data: Any,
) -> tuple[Component, ...]:
    """Describes every component of a mixture, from its factors and responsibilities.

    Args:
        model: the mixture.
        state: its factors.
        responsibilities: probabilities of the components for each event [K, N].
        data: the events, from `points` or `located_counts`.

    Returns:
        The K components in the order of the state.

    Example:
        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import components, gaussian_poisson_mixture, located_counts
        >>> data = located_counts([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]], [1, 3, 50])
        >>> model = gaussian_poisson_mixture(data, 2)
        >>> responsibilities = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> first, second = components(model, model.update(responsibilities, data), responsibilities, data)
        >>> first.num_events, second.num_events, first.rate < second.rate
        (2.0, 1.0, True)
    """
    shares = np.asarray(responsibilities, np.float64)
    sizes = shares.sum(1)
    weights, weights_std = _weights(model.weights, state.weights)
    if isinstance(model, GaussianPoissonMixture):
        loc_std, covariances = _round(model, state)
        rates = _rates(state, shares, np.asarray(data.counts, np.float64))
    else:
        loc_std, covariances = _elliptic(state)
        rates = [{}] * len(sizes)
    loc = np.asarray(state.loc, np.float64)
    return tuple(
        Component(
            number=k + 1,
            num_events=float(sizes[k]),
            weight=float(weights[k]),
            weight_std=float(weights_std[k]),
            loc=tuple(loc[k].tolist()),
            loc_std=tuple(loc_std[k].tolist()),
            covariance=tuple(map(tuple, covariances[k].tolist())),
            **rates[k],
        )
        for k in range(len(sizes))
    )


def _weights(weights: MixtureWeights, factor: Any) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    mean = np.asarray(weights.mean(factor), np.float64)
    if not isinstance(weights, DirichletWeights):
        return mean, np.zeros_like(mean)
    return mean, np.sqrt(mean * (1 - mean) / (float(np.sum(factor)) + 1))


def _round(model: GaussianPoissonMixture, state: GaussianPoissonFactors) -> tuple[np.ndarray, np.ndarray]:
    """The deviations of the places [K, D], and the covariances [K, D, D]."""
    num_components, num_dimensions = state.loc.shape
    std = np.asarray(state.precision, np.float64)[:, None] ** -0.5
    covariance = np.eye(num_dimensions) / float(model.position_precision)
    return np.repeat(std, num_dimensions, axis=1), np.tile(covariance, (num_components, 1, 1))


def _elliptic(state: NormalWishartFactors) -> tuple[np.ndarray, np.ndarray]:
    """The same. A place is a Student's t, whose variance is infinite up to two degrees of freedom."""
    num_dimensions = state.loc.shape[1]
    inverse_scale = np.asarray(state.inverse_scale, np.float64)
    degrees, count = (np.asarray(leaf, np.float64) for leaf in (state.degrees, state.loc_count))
    excess = degrees - num_dimensions - 1
    scale = np.where(excess > 0, 1 / (np.where(excess > 0, excess, 1) * count), np.inf)
    std = np.sqrt(np.diagonal(inverse_scale, axis1=1, axis2=2) * scale[:, None])
    return std, inverse_scale / degrees[:, None, None]


def _rates(state: GaussianPoissonFactors, shares: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
    concentration, rate = (np.asarray(leaf, np.float64) for leaf in (state.concentration, state.rate))
    rows = []
    for k, of_events in enumerate(shares):
        total = of_events.sum()
        mean = (of_events * counts).sum() / total if total > 0 else 0.0
        spread = (of_events * (counts - mean) ** 2).sum() / total if total > 0 else 0.0
        rows.append(
            {
                "rate": float(concentration[k] / rate[k]),
                "rate_std": float(np.sqrt(concentration[k]) / rate[k]),
                "dispersion": float(spread / mean) if mean > 0 else float("nan"),
            }
        )
    return rows


def component_sizes(model: ConjugateMixture, state: Any) -> Float[np.ndarray, " K"]:
    """Expected number of events of each component [K], at least zero.

    Args:
        model: the mixture.
        state: its factors.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import component_sizes, normal_wishart_mixture, points
        >>> data = points(np.random.default_rng(0).normal(size=(10, 2)))
        >>> model = normal_wishart_mixture(data, 2)
        >>> responsibilities = jnp.repeat(jnp.array([[0.7], [0.3]]), 10, axis=1)
        >>> component_sizes(model, model.update(responsibilities, data)).round(3).tolist()
        [7.0, 3.0]
    """
    return np.maximum(np.asarray(model.component_sizes(state), np.float64), 0)


def effective_num_components(model: ConjugateMixture, state: Any) -> float:
    """Effective number of components: the exponential of the entropy of their shares of the events.

    It is K where all K components have the same size.

    Args:
        model: the mixture.
        state: its factors.

    Example:
        Of three components one is empty and two share the events equally:

        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import effective_num_components, normal_wishart_mixture, points
        >>> data = points(np.random.default_rng(0).normal(size=(10, 2)))
        >>> model = normal_wishart_mixture(data, 3)
        >>> responsibilities = jnp.repeat(jnp.array([[0.5], [0.5], [0.0]]), 10, axis=1)
        >>> f"{effective_num_components(model, model.update(responsibilities, data)):.2f}"
        '2.00'
    """
    sizes = component_sizes(model, state)
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
