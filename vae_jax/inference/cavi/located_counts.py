"""Events with places and counts, as the Gaussian-Poisson mixture reads them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy.special import gammaln

from vae_jax.typing import Scalar


class LocatedCounts(NamedTuple):
    """Events as the mixture reads them. Build them with `located_counts`."""

    features: Float[Array, "D+2 N"]
    """The positions about their mean, the counts, and ones."""
    centre: Float[Array, " D"]
    """The positions' mean."""
    squared_distance: Scalar
    """The sum over events of the squared distance from the centre."""
    log_factorials: Scalar
    """The sum over events of log s_n!."""
    num_events: Scalar
    """N. Where events are sharded over devices the features of one have fewer."""

    @property
    def positions(self) -> Float[Array, "N D"]:
        """Where the events were."""
        return self.features[:-2].T + self.centre[None]

    @property
    def counts(self) -> Float[Array, " N"]:
        """How many stations reported each."""
        return self.features[-2]


def located_counts(positions: ArrayLike, counts: ArrayLike) -> LocatedCounts:
    """Events from their positions [N, D] and counts [N].

    Raises:
        ValueError: the shapes do not fit, a position is not finite, a count is no natural number, or either is so
            large that its sums overflow. Rows and columns are numbered from 1.
    """
    points, numbers = np.asarray(positions, np.float64), np.asarray(counts, np.float64)
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"positions must be N rows of D numbers, got shape {points.shape}: give at least one event")
    if numbers.shape != points.shape[:1]:
        raise ValueError(
            f"counts must have shape {points.shape[:1]}, one a position, got {numbers.shape}: mend the data"
        )
    for row, column in np.argwhere(~np.isfinite(points))[:1]:
        raise ValueError(
            f"positions must be finite, got {points[row, column]} in row {row + 1}, column {column + 1}: leave it out"
        )
    for row in np.flatnonzero(~((numbers >= 0) & np.isfinite(numbers) & (numbers == np.floor(numbers))))[:1]:
        raise ValueError(f"counts must be natural numbers, got {numbers[row]:g} in row {row + 1}: mend the data")
    centre = points.mean(0)
    # Centred in double precision: far from the origin single precision would have few digits left for the differences.
    centred = points - centre
    dtype = jnp.result_type(float)
    check_squares(centred, dtype)
    log_factorials = gammaln(numbers + 1).sum()
    if log_factorials > jnp.finfo(dtype).max:
        row = numbers.argmax()
        raise ValueError(
            f"counts must be small enough for {dtype}, got {numbers[row]:g} in row {row + 1}: mend the data"
        )
    features = np.vstack([centred.T, numbers, np.ones(len(points))])
    sums = ((centred**2).sum(), log_factorials, len(points))
    return LocatedCounts(
        jnp.asarray(features, dtype), jnp.asarray(centre, dtype), *(jnp.asarray(x, dtype) for x in sums)
    )


def check_squares(centred: Float[np.ndarray, "N D"], dtype: Any) -> None:
    """Raises ValueError for positions about their mean whose squares add up to more than the type can hold."""
    with np.errstate(over="ignore"):
        total = (centred**2).sum()
    if not total < jnp.finfo(dtype).max:
        row, column = np.unravel_index(np.abs(centred).argmax(), centred.shape)
        raise ValueError(
            f"positions must be near enough to each other for {dtype}, got one {np.abs(centred[row, column]):g} from "
            f"their mean in row {row + 1}, column {column + 1}: change its unit"
        )
