"""Gauss-Legendre quadrature against the density of one latent, with what gradient estimators need at its nodes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr, roots_legendre

from vae_jax.problems.central_moments import CentralMoments, weighted_moments

Nodes = Float[np.ndarray, " n"]
Edges = Float[np.ndarray, " edges"]

_POINTS_A_PANEL = 16
_NORMAL_REACH = 13.0
"""Standard deviations on each side that are integrated over: the normal's mass beyond is 1e-38."""
_NOISE_REACH = 14.0
"""Standard deviations on each side that are integrated over for functions that may grow."""


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
    is_quantile: bool
    """Whether the path is that of the quantile function."""
    edge_density: float
    """q's density at z = 0 times its scale, which has no unit."""
    path_at_zero: dict[str, float]
    """dz / d parameter there."""
    loc: float


def standard_normal_nodes(step: float) -> tuple[Nodes, Nodes]:
    """Nodes and weights of the trapezoid rule under the standard normal density.

    It converges faster than any power of the step on a smooth function that vanishes at both ends.
    """
    noise = np.linspace(-_NOISE_REACH, _NOISE_REACH, round(2 * _NOISE_REACH / step) + 1)
    return noise, np.exp(-0.5 * noise**2) * (noise[1] - noise[0]) / np.sqrt(2 * np.pi)


NOISE, NOISE_WEIGHTS = standard_normal_nodes(0.005)


def at_noise(term: Callable[[Nodes], Any]) -> Nodes:
    """A function of standard normal noise at `NOISE`.

    Args:
        term: noise [n] to values [n] or a scalar, of slower growth than exp(noise^2 / 8), so that the fourth moment
            exists.
    """
    return np.broadcast_to(np.asarray(term(NOISE), np.float64), NOISE.shape)


def noise_moments(term: Callable[[Nodes], Any]) -> CentralMoments:
    """Central moments of a smooth function of standard normal noise, as `at_noise` takes it."""
    return weighted_moments(at_noise(term), NOISE_WEIGHTS)


def positive_normal(loc: float, scale: float) -> LatentNodes:
    """Nodes for Normal(loc, scale) given that it is positive, with the path of the quantile function."""
    nodes, edge = location_scale_normal(loc, scale), -loc / scale
    # How far the noise moves with the edge, at the same quantile: the ratio of two Mills ratios.
    noise = nodes.path["scale"]
    along = np.exp(log_ndtr(-noise) - _log_normal(noise) - (log_ndtr(-edge) - _log_normal(edge)))
    path = {"loc": 1 - along, "scale": noise - edge * along}
    return replace(nodes, path=path, is_quantile=True, path_at_zero={"loc": 0.0, "scale": 0.0})


def location_scale_normal(loc: float, scale: float) -> LatentNodes:
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
        is_quantile=True,
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
        is_quantile=False,
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
