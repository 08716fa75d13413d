"""Figure of a fit to two latents: how the ELBO rose, and the fitted density against the exact posterior's."""

from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_jax.plotting.elbo_ascent import FITTED, REFERENCE, ElboAscent, add_legend, draw_ascent
from vae_jax.plotting.style import STYLE, StyledFigure

MASSES = (0.9, 0.5)
"""Masses of the regions that contours enclose."""

DASHED = (0, (4, 1.5))

Grids = tuple[Float[np.ndarray, " G"], Float[np.ndarray, " H"]]
Curve = tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]
"""Points, and a density there."""


class PairDensity(NamedTuple):
    """A density of two latents."""

    joint: Float[np.ndarray, "H G"]
    """The density, up to a factor, on a grid of the second latent (rows) and the first (columns)."""
    marginals: tuple[Curve, Curve]
    means: tuple[float, float]


def fitted_pair(
    ascent: ElboAscent,
    grids: Grids,
    *,
    posterior: PairDensity,
    fitted: PairDensity,
    names: tuple[str, str],
) -> Figure:
    """Plots the ELBO by step, and a fitted density of two latents against the exact posterior.

    The density is shown jointly and by its marginals.

    Args:
        ascent: the ELBO by step.
        grids: values of each latent at which the joint densities are given.
        posterior: density of the exact posterior.
        fitted: density of the fitted q.
        names: names of the two latents.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import ElboAscent, PairDensity, fitted_pair
        >>> grid = np.linspace(0.1, 4, 20)
        >>> density = np.exp(-((grid - 2) ** 2))
        >>> pair = PairDensity(np.outer(density, density), ((grid, density), (grid, density)), (2.0, 2.0))
        >>> ascent = ElboAscent(np.linspace(-5, -2, 20), np.array([-4.0, -2.5]), np.array([0.1, 0.1]), -2.0, True)
        >>> figure = fitted_pair(ascent, (grid, grid), posterior=pair, fitted=pair, names=("u", "v"))
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['step', 'u', 'u', 'v']
    """
    first, second = names
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.7), layout="constrained")
        axes = figure.subplot_mosaic(
            [["elbo", "joint", "first"], ["elbo", "joint", "second"]], width_ratios=(1.15, 1, 1)
        )
        draw_ascent(axes["elbo"], ascent)
        _draw_joint(axes["joint"], grids, posterior, fitted)
        axes["joint"].set_xlabel(first)
        axes["joint"].set_ylabel(second)
        for number, panel in enumerate(("first", "second")):
            _draw_marginal(axes[panel], number, posterior, fitted)
            axes[panel].set_xlim(0, grids[number][-1])
            axes[panel].set_xlabel(names[number], labelpad=1)
        axes["first"].set_title("marginals and their means")
        handles = [
            Line2D([], [], color=REFERENCE, label="exact posterior"),
            Line2D([], [], color=FITTED, linestyle=DASHED, label="fitted q"),
        ]
        add_legend(figure, axes["elbo"], handles)
    return figure


def _draw_joint(axes: Axes, grids: Grids, posterior: PairDensity, fitted: PairDensity) -> None:
    for density, colour, style in ((posterior.joint, REFERENCE, "solid"), (fitted.joint, FITTED, "dashed")):
        levels = [_level(density, mass) for mass in MASSES]
        axes.contour(*grids, density, levels=levels, colors=colour, linestyles=style, linewidths=1.1)
    axes.set_title("50% and 90% regions")


def _level(density: Float[np.ndarray, "H G"], mass: float) -> float:
    """The density above which that much of the mass lies."""
    ordered = np.sort(density.ravel())[::-1]
    return float(ordered[np.searchsorted(np.cumsum(ordered) / ordered.sum(), mass)])


def _draw_marginal(axes: Axes, number: int, posterior: PairDensity, fitted: PairDensity) -> None:
    axes.plot(*posterior.marginals[number], color=REFERENCE, linewidth=1.2)
    axes.plot(*fitted.marginals[number], color=FITTED, linewidth=1.2, linestyle=DASHED)
    axes.axvline(posterior.means[number], color=REFERENCE, linewidth=0.6)
    axes.axvline(fitted.means[number], color=FITTED, linewidth=0.6, linestyle=DASHED)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
