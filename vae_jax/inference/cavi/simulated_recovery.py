"""The share of a simulated truth that a mixture finds again."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import stats
from scipy.optimize import linear_sum_assignment

from vae_jax.inference.cavi.gaussian_poisson_mixture import GaussianPoissonFactors, GaussianPoissonMixture, Simulation

COVERAGE = 0.95
"""Probability of the central intervals under q."""


class Recovery(NamedTuple):
    """True components and the fitted ones that hold most of their events, each matched once."""

    truth: Simulation
    matches: Int[np.ndarray, " K"]
    """The fitted component of each true one, from 0, and -1 where there is none."""
    loc_inside: Bool[np.ndarray, "K D"]
    """Whether the true place lies in the interval under q. False for a component without a match."""
    rate_inside: Bool[np.ndarray, " K"]
    """The same for the rate."""
    share_right: float
    """Events whose most probable component is the match of their true one."""
    share_attainable: float
    """The same under the true parameters: no method separates components that overlap."""

    @property
    def num_intervals(self) -> int:
        """The number of intervals."""
        matched = self.matches >= 0
        return int(matched.sum()) * (self.loc_inside.shape[1] + 1)

    @property
    def num_inside(self) -> int:
        """The number of intervals that hold the truth."""
        return int(self.loc_inside.sum() + self.rate_inside.sum())


def recovery(
    model: GaussianPoissonMixture,
    state: GaussianPoissonFactors,
    responsibilities: Float[Array | np.ndarray, "K N"],
    truth: Simulation,
) -> Recovery:
    """Matches a fit of simulated events to the parameters that they were drawn from.

    Args:
        model: the mixture.
        state: its fitted factors.
        responsibilities: probabilities of the components for each event [K, N].
        truth: the parameters and the labels that the events were drawn from.

    Returns:
        The fitted component of each true one, whether intervals hold the truth, and the shares of events that are and
        could be assigned right.

    Example:
        Two clusters that no method can confuse. The fit has the true labels, in another order:

        >>> import jax.numpy as jnp
        >>> from vae_jax.inference.cavi import Simulation, gaussian_poisson_mixture, located_counts, recovery
        >>> data = located_counts([[-0.1, 0.0], [0.1, 0.0], [8.9, 9.0], [9.1, 9.0]], [1, 3, 48, 52])
        >>> loc, rate = jnp.array([[0.0, 0.0], [9.0, 9.0]]), jnp.array([2.0, 50.0])
        >>> truth = Simulation(data, jnp.array([0, 0, 1, 1]), loc, rate, jnp.array([0.5, 0.5]))
        >>> model = gaussian_poisson_mixture(data, 2)
        >>> responsibilities = jnp.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
        >>> result = recovery(model, model.update(responsibilities, data), responsibilities, truth)
        >>> result.matches.tolist(), result.share_right, f"{result.num_inside} of {result.num_intervals} intervals"
        ([1, 0], 1.0, '6 of 6 intervals')
    """
    labels = np.asarray(truth.labels)
    shares = np.asarray(responsibilities, np.float64)
    num_true = len(truth.rate)
    shared = np.stack([shares[:, labels == component].sum(1) for component in range(num_true)])
    # A true component without events can be matched to none.
    rows, columns = linear_sum_assignment(shared, maximize=True)
    matches = np.full(num_true, -1)
    for row, column in zip(rows, columns, strict=True):
        if shared[row, column] > 0:
            matches[row] = column
    matched = matches >= 0
    loc_inside, rate_inside = _inside(state, truth, matches)
    assigned = shares.argmax(0)
    return Recovery(
        truth=truth,
        matches=matches,
        loc_inside=loc_inside & matched[:, None],
        rate_inside=rate_inside & matched,
        share_right=float((assigned == matches[labels]).mean()),
        share_attainable=float((_log_joint(model, truth).argmax(0) == labels).mean()),
    )


def _inside(
    state: GaussianPoissonFactors, truth: Simulation, matches: Int[np.ndarray, " K"]
) -> tuple[Bool[np.ndarray, "K D"], Bool[np.ndarray, " K"]]:
    matched: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[matches], state)
    tails = (1 - COVERAGE) / 2
    distance = np.abs(np.asarray(truth.loc, np.float64) - matched.loc)
    loc_inside = distance <= stats.norm.isf(tails) * matched.precision[:, None] ** -0.5
    level = stats.gamma.cdf(np.asarray(truth.rate, np.float64), matched.concentration, scale=1 / matched.rate)
    return loc_inside, (level >= tails) & (level <= 1 - tails)


def _log_joint(model: GaussianPoissonMixture, truth: Simulation) -> Float[np.ndarray, "K N"]:
    """log p(z_n = k, x_n, s_n) under the true parameters, up to what is the same for all k."""
    positions, counts = np.asarray(truth.data.positions), np.asarray(truth.data.counts)
    rows = []
    for loc, rate, weight in zip(np.asarray(truth.loc), np.asarray(truth.rate), np.asarray(truth.weights), strict=True):
        squares = ((positions - loc) ** 2).sum(1)
        # The smallest positive number: a weight or a rate may have been drawn as zero.
        tiny = np.finfo(np.float32).tiny
        log_count = counts * np.log(max(rate, tiny)) - rate
        rows.append(np.log(max(weight, tiny)) - float(model.position_precision) / 2 * squares + log_count)
    return np.stack(rows)
