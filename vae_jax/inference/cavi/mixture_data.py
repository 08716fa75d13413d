"""Data as the mixtures read them: points, and events with places and counts."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy.linalg import solve_triangular
from scipy.special import gammaln

from vae_jax.typing import Scalar

DEPENDENT = 1e-12
"""Share of a column that other columns do not explain at which it passes for a combination of them."""


class Points(NamedTuple):
    """Points in the form that the normal-Wishart mixture reads. Build them with `points`."""

    features: Float[Array, "F N"]
    """The positions about their mean, the elements of their outer squares, and ones."""
    centre: Float[np.ndarray, " D"]
    """The positions' mean, in double precision."""
    centred: Float[np.ndarray, "N D"] | None
    """The positions about their mean in double precision, which `whitened` needs."""
    axes: Float[np.ndarray, "D D"] | None = None
    """Whitened points: the matrix that turns them into the original ones about their mean."""
    origin: Float[np.ndarray, " D"] | None = None
    """Whitened points: the mean of the original ones."""
    log_jacobian: float = 0.0
    """Whitened points: what the log density of the original ones has more (nats)."""

    def transformed(
        self, loc: Float[Array | np.ndarray, " D"], inverse_scale: Float[Array | np.ndarray, "D D"]
    ) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
        """A place and the inverse scale of a precision matrix, in the coordinates of these whitened points."""
        assert self.origin is not None
        solve = partial(solve_triangular, self.axes, lower=True)
        half = solve(np.asarray(inverse_scale, np.float64))
        return solve(np.asarray(loc, np.float64) - self.origin), solve(half.T)

    def whitened(self) -> "Points":
        """The same points with a mean of zero and a covariance of one.

        Sums of squares of columns that nearly depend on each other leave few digits for what distinguishes them. In
        these coordinates nothing is lost. The first coordinate depends on the first column alone, the second on the
        first two, and so on, so that places keep their lexicographic order.
        """
        assert self.centred is not None
        num_points, num_dimensions = self.centred.shape
        # Of the columns in units of their lengths, so that what is negligible does not depend on a column's unit.
        length = np.sqrt((self.centred**2).mean(0))
        length = np.where(length > 0, length, 1)
        factor = np.linalg.qr(self.centred / length / math.sqrt(num_points), mode="r")
        missing = max(num_dimensions - len(factor), 0)
        root = np.pad(factor, ((0, missing), (0, 0))).T
        diagonal = np.diagonal(root)
        root = root * np.where(diagonal < 0, -1, 1)
        # Where a column is a combination of others, any unit will do.
        root[np.diag_indices(num_dimensions)] = np.where(np.abs(diagonal) > DEPENDENT, np.abs(diagonal), 1)
        axes = length[:, None] * root
        white = solve_triangular(axes, self.centred.T, lower=True).T
        dtype = self.features.dtype
        return Points(
            jnp.asarray(_features(white), dtype),
            centre=np.zeros(num_dimensions),
            centred=None,
            axes=axes,
            origin=self.centre,
            log_jacobian=-num_points * float(np.log(np.diagonal(axes)).sum()),
        )


def points(positions: ArrayLike) -> Points:
    """Prepares points for the normal-Wishart mixture.

    Args:
        positions: positions of the points [N, D].

    Raises:
        ValueError: there are no points, or a position is not finite or so large that sums of squares overflow. Messages
            number rows and columns from 1.

    Example:
        >>> from vae_jax.inference.cavi import points
        >>> data = points([[0.0, 0.0], [2.0, 4.0]])
        >>> data.centre.tolist(), data.features[:2].T.tolist()  # positions about the centre
        ([1.0, 2.0], [[-1.0, -2.0], [1.0, 2.0]])
    """
    values = _checked_positions(positions, "point")
    centred, centre, dtype = _centred(values)
    return Points(jnp.asarray(_features(centred), dtype), centre, centred)


def _features(centred: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "F N"]:
    """The points, the elements of their outer squares, and ones."""
    squares = (centred.T[:, None] * centred.T[None]).reshape(-1, len(centred))
    return np.vstack([centred.T, squares, np.ones(len(centred))])


class LocatedCounts(NamedTuple):
    """Events in the form that the Gaussian-Poisson mixture reads. Build them with `located_counts`."""

    features: Float[Array, "D+2 N"]
    """The positions about their mean, the counts, and ones."""
    centre: Float[Array, " D"]
    """The positions' mean."""
    squared_distance: Scalar
    """The sum over events of the squared distance from the centre."""
    log_factorials: Scalar
    """The sum over events of log s_n!."""
    num_events: Scalar
    """N. Where events are sharded over devices, the features on one device have fewer."""

    @property
    def positions(self) -> Float[Array, "N D"]:
        """The places of the events."""
        return self.features[:-2].T + self.centre[None]

    @property
    def counts(self) -> Float[Array, " N"]:
        """Each event's count."""
        return self.features[-2]


def located_counts(positions: ArrayLike, counts: ArrayLike) -> LocatedCounts:
    """Prepares events with places and counts for the Gaussian-Poisson mixture.

    Args:
        positions: positions of the events [N, D].
        counts: counts of the events [N], natural numbers.

    Raises:
        ValueError: the shapes do not fit, a position is not finite, a count is not a natural number, or either is so
            large that its sums overflow. Messages number rows and columns from 1.

    Example:
        >>> from vae_jax.inference.cavi import located_counts
        >>> data = located_counts([[0.0, 0.0], [2.0, 4.0]], [3, 5])
        >>> data.counts.tolist(), data.positions.tolist(), data.squared_distance.item()
        ([3.0, 5.0], [[0.0, 0.0], [2.0, 4.0]], 10.0)
    """
    values = _checked_positions(positions, "event")
    numbers = np.asarray(counts, np.float64)
    if numbers.shape != values.shape[:1]:
        raise ValueError(
            f"counts must have shape {values.shape[:1]}, one a position, got {numbers.shape}: correct the data"
        )
    for row in np.flatnonzero(~((numbers >= 0) & np.isfinite(numbers) & (numbers == np.floor(numbers))))[:1]:
        raise ValueError(f"counts must be natural numbers, got {numbers[row]:g} in row {row + 1}: correct the data")
    centred, centre, dtype = _centred(values)
    log_factorials = gammaln(numbers + 1).sum()
    if log_factorials > jnp.finfo(dtype).max:
        row = numbers.argmax()
        raise ValueError(
            f"counts must be small enough for {dtype}, got {numbers[row]:g} in row {row + 1}: correct the data"
        )
    features = np.vstack([centred.T, numbers, np.ones(len(values))])
    sums = ((centred**2).sum(), log_factorials, len(values))
    return LocatedCounts(
        jnp.asarray(features, dtype), jnp.asarray(centre, dtype), *(jnp.asarray(x, dtype) for x in sums)
    )


def _checked_positions(positions: ArrayLike, noun: str) -> Float[np.ndarray, "N D"]:
    values = np.asarray(positions, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"positions must be N rows of D numbers, got shape {values.shape}: give at least one {noun}")
    for row, column in np.argwhere(~np.isfinite(values))[:1]:
        raise ValueError(
            f"positions must be finite, got {values[row, column]} in row {row + 1}, column {column + 1}: leave it out"
        )
    return values


def _centred(positions: Float[np.ndarray, "N D"]) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, " D"], Any]:
    """Positions about their mean, the mean, and the type that both are kept in.

    They are centred in double precision: far from the origin single precision would have few digits left for the
    differences.

    Raises:
        ValueError: their squares add up to more than the type can hold.
    """
    centre = positions.mean(0)
    centred, dtype = positions - centre, jnp.result_type(float)
    with np.errstate(over="ignore"):
        total = (centred**2).sum()
    if not total < jnp.finfo(dtype).max:
        row, column = np.unravel_index(np.abs(centred).argmax(), centred.shape)
        raise ValueError(
            f"positions must be near enough to each other for {dtype}, got one {np.abs(centred[row, column]):g} from "
            f"their mean in row {row + 1}, column {column + 1}: change its unit"
        )
    return centred, centre, dtype
