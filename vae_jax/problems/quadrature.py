"""Gauss-Legendre quadrature against the density of one latent, with what gradient estimators need at its nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr, roots_legendre

Nodes = Float[np.ndarray, " n"]
Edges = Float[np.ndarray, " edges"]

_POINTS_A_PANEL = 16
_NORMAL_REACH = 13.0
"""Standard deviations on each side that are integrated over: the normal's mass beyond is 1e-38."""


@dataclass(frozen=True)
class LatentNodes:
    """Nodes for E[g(z)] ~ sum(weight * g(z)) under one latent's distribution q, and q's derivatives there."""

    z: Nodes
    weight: Nodes
    log_density: Nodes
    dlog_density: Nodes
    """d log q / dz."""
    score: dict[str, Nodes]
    """d log q / d parameter, for loc and scale."""
    path: dict[str, Nodes]
    """dz / d parameter along the reparameterized path."""
    edge_density: float
    """q's density at z = 0 times its scale, which has no unit."""
    path_at_zero: dict[str, float]
    """dz / d parameter there."""
    loc: float


_NOISE = np.linspace(-14.0, 14.0, 5_601)
_NOISE_MASS = np.exp(-0.5 * _NOISE**2) * (_NOISE[1] - _NOISE[0]) / np.sqrt(2 * np.pi)
"""The trapezoid rule converges faster than any power of the step on a smooth function that vanishes at both ends."""


class Moments(NamedTuple):
    """Of a random variable."""

    mean: float
    variance: float
    kurtosis: float
    """E[(x - mean)^4] / variance^2; NaN of a constant."""


def noise_moments(term: Callable[[Nodes], Any]) -> Moments:
    """Moments of a smooth function of standard normal noise.

    Args:
        term: noise [n] to values [n] or a scalar, of slower growth than exp(noise^2 / 8), so that the fourth moment
            exists.
    """
    return moments_of(np.broadcast_to(np.asarray(term(_NOISE), np.float64), _NOISE.shape), _NOISE_MASS)


def moments_of(values: Float[np.ndarray, "*n"], weights: Float[np.ndarray, "*n"]) -> Moments:
    """Moments of values that have these weights, which add up to one."""
    mean = float((weights * values).sum())
    square = (values - mean) ** 2
    variance = float((weights * square).sum())
    # Below this the variance is only the rounding of the sums.
    if variance <= (1e-11 * max(abs(mean), float(weights.ravel() @ np.abs(values).ravel()))) ** 2:
        return Moments(mean, 0.0, float("nan"))
    return Moments(mean, variance, float((weights * square**2).sum()) / variance**2)


def difference_moments(one: Moments, other: Moments, factor: float) -> Moments:
    """Moments of factor (x - y) for independent x and y: their cumulants add up."""
    variance = one.variance + other.variance
    fourth_cumulant = (one.kurtosis - 3) * one.variance**2 + (other.kurtosis - 3) * other.variance**2
    kurtosis = 3 + fourth_cumulant / variance**2 if variance else float("nan")
    return Moments(factor * (one.mean - other.mean), factor**2 * variance, kurtosis)


def positive_normal(loc: float, scale: float) -> LatentNodes:
    """Nodes for Normal(loc, scale) given that it is positive, with the path loc + scale * noise."""
    edge = -loc / scale
    return _normal_above_zero(loc, scale, log_mass=log_ndtr(-edge), hazard=np.exp(_log_normal(edge) - log_ndtr(-edge)))


def untreated_normal(loc: float, scale: float) -> LatentNodes:
    """Nodes for the positive part of Normal(loc, scale) as it is: the weights add up to less than one."""
    return _normal_above_zero(loc, scale, log_mass=0.0, hazard=0.0)


def log_normal(loc: float, scale: float) -> LatentNodes:
    """Nodes for exp(Normal(loc, scale)), with the path exp(loc + scale * noise)."""
    # Moments up to the fourth power tilt the normal by as many scales.
    reach = _NORMAL_REACH + 8 * scale
    noise, width = panels(np.arange(-reach, reach + 1.0))
    z = np.exp(loc + scale * noise)
    return LatentNodes(
        z=z,
        weight=width * np.exp(_log_normal(noise)),
        log_density=_log_normal(noise) - np.log(scale) - np.log(z),
        dlog_density=-(noise / scale + 1) / z,
        score={"loc": noise / scale, "scale": (noise**2 - 1) / scale},
        path={"loc": z, "scale": z * noise},
        edge_density=0.0,
        path_at_zero={"loc": 0.0, "scale": 0.0},
        loc=loc,
    )


def _normal_above_zero(loc: float, scale: float, log_mass: float, hazard: float) -> LatentNodes:
    lowest = max(0.0, loc - _NORMAL_REACH * scale)
    start = (lowest - loc) / scale
    steps, width = panels(_graded(max(start + 1, _NORMAL_REACH) - start))
    noise = start + steps
    return LatentNodes(
        # Not loc + scale * noise, which would lose the digits of nodes close to zero.
        z=lowest + scale * steps,
        weight=width * np.exp(_log_normal(noise) - log_mass),
        log_density=_log_normal(noise) - np.log(scale) - log_mass,
        dlog_density=-noise / scale,
        score={"loc": (noise - hazard) / scale, "scale": (noise**2 - 1 + hazard * loc / scale) / scale},
        path={"loc": np.ones_like(noise), "scale": noise},
        edge_density=float(np.exp(_log_normal(-loc / scale) - log_mass)),
        path_at_zero={"loc": 1.0, "scale": -loc / scale},
        loc=loc,
    )


def _graded(reach: float) -> Edges:
    """Edges of panels from 0 to `reach`: of one unit, and towards 0 ever shorter ones for the logarithm there."""
    return np.concatenate([[0.0], 4.0 ** np.arange(-14, 0), np.arange(1.0, reach + 1.0)])


def panels(edges: Edges) -> tuple[Nodes, Nodes]:
    """Nodes and weights of Gauss-Legendre quadrature on each panel between two edges."""
    points, weights = roots_legendre(_POINTS_A_PANEL)
    half = np.diff(edges)[:, None] / 2
    middle = (edges[1:] + edges[:-1])[:, None] / 2
    return (middle + half * points).ravel(), (half * weights).ravel()


def _log_normal(noise: Any) -> Any:
    return -0.5 * noise**2 - 0.5 * np.log(2 * np.pi)
