"""Figure of a regression: how the ELBO rose, the coefficients, and the fitted mean, against Laplace's approximation."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_jax.plotting.elbo_ascent import FITTED, MOST_POINTS, REFERENCE, ElboAscent, add_legend, draw_ascent
from vae_jax.plotting.style import STYLE, StyledFigure

INTERVAL = 1.96
"""Standard deviations to each end of a 95% interval."""


class Coefficients(NamedTuple):
    """Means and standard deviations of K coefficients, fitted and by Laplace's method."""

    names: Sequence[str]
    mean: Float[np.ndarray, " K"]
    std: Float[np.ndarray, " K"]
    laplace_mean: Float[np.ndarray, " K"]
    """NaN where Laplace's approximation is missing."""
    laplace_std: Float[np.ndarray, " K"]


class FittedMean(NamedTuple):
    """The mean response over one of the predictors, the others at their means."""

    name: str
    grid: Float[np.ndarray, " G"]
    """Values of the predictor."""
    mean: Float[np.ndarray, " G"]
    interval: Float[np.ndarray, "2 G"]
    """Ends of the fit's 95% interval."""
    laplace_mean: Float[np.ndarray, " G"]
    predictor: Float[np.ndarray, " N"]
    """The data."""
    response: Float[np.ndarray, " N"]


def regression_fit(
    ascent: ElboAscent, coefficients: Coefficients, fitted_means: Sequence[FittedMean], *, response: str
) -> Figure:
    """Plots a regression: the ELBO by step, the coefficients against Laplace's, and the fitted mean over predictors.

    Args:
        ascent: the ELBO by step.
        coefficients: the coefficients, the intercept first.
        fitted_means: the fitted mean over each predictor that is drawn, at least one.
        response: name of the response.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import Coefficients, ElboAscent, FittedMean, regression_fit
        >>> ascent = ElboAscent(np.linspace(-5, -2, 20), np.array([-4.0, -2.5]), np.array([0.1, 0.1]), -2.0, True)
        >>> mean, std, grid = np.array([0.0, 1.0]), np.array([0.1, 0.1]), np.linspace(1, 2, 5)
        >>> coefficients = Coefficients(("(intercept)", "dose"), mean, std, laplace_mean=mean, laplace_std=std)
        >>> line = FittedMean("dose", grid, grid, np.stack([grid - 0.1, grid + 0.1]), grid, grid, grid)
        >>> figure = regression_fit(ascent, coefficients, [line], response="response")
        >>> [axes.get_title() for axes in figure.axes][1:], figure.axes[2].get_xlabel(), figure.axes[2].get_ylabel()
        (['coefficients', 'fitted mean'], 'dose', 'response')
    """
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.2 if len(fitted_means) > 1 else 6.0, 2.6), layout="constrained")
        axes = figure.subplots(1, 2 + len(fitted_means))
        draw_ascent(axes[0], ascent)
        _draw_coefficients(axes[1], coefficients)
        for panel, each in zip(axes[2:], fitted_means, strict=True):
            _draw_mean(panel, each)
        axes[2].set_ylabel(response)
        handles = [Line2D([], [], color=FITTED, label="fit, 95%")]
        if _has_reference(coefficients):
            handles.insert(0, Line2D([], [], color=REFERENCE, label="Laplace"))
        add_legend(figure, axes[0], handles)
    return figure


def _draw_coefficients(axes: Axes, coefficients: Coefficients) -> None:
    """Intervals in units of the reference's standard deviations, as those of several coefficients are not of one size.

    The reference is Laplace's approximation, or where it is missing the fit itself.
    """
    has_reference = _has_reference(coefficients)
    center, unit = coefficients.mean, coefficients.std
    if has_reference:
        center, unit = coefficients.laplace_mean, coefficients.laplace_std
    places = np.arange(len(center))[::-1]
    for offset, mean, std, colour, marker in (
        (0.12, coefficients.laplace_mean, coefficients.laplace_std, REFERENCE, "s"),
        (-0.12, coefficients.mean, coefficients.std, FITTED, "o"),
    ):
        axes.errorbar(
            (mean - center) / unit, places + offset, xerr=INTERVAL * std / unit, fmt=marker, markersize=3.5,
            linewidth=1.1, color=colour,
        )  # fmt: skip
    labels = [f"{name.strip('()')}\n{mean:.3f}" for name, mean in zip(coefficients.names, center, strict=True)]
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_xlim(-3.2, 3.2)
    axes.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.set_title("coefficients")
    axes.set_xlabel(f"(estimate − {'Laplace' if has_reference else 'fit'}'s mean) / its std")


def _has_reference(coefficients: Coefficients) -> bool:
    return bool(np.isfinite(coefficients.laplace_std).all())


def _draw_mean(axes: Axes, fitted: FittedMean) -> None:
    shown = slice(None, None, max(1, len(fitted.predictor) // MOST_POINTS))
    axes.plot(fitted.predictor[shown], fitted.response[shown], ".", markersize=2, color="0.7", rasterized=True)
    axes.plot(fitted.grid, fitted.laplace_mean, color=REFERENCE, linewidth=2.2, alpha=0.5)
    axes.fill_between(fitted.grid, *fitted.interval, color=FITTED, alpha=0.35, linewidth=0)
    axes.plot(fitted.grid, fitted.mean, color=FITTED, linewidth=1.0)
    axes.set_title("fitted mean")
    axes.set_xlabel(fitted.name)
    axes.set_ylim(bottom=0)
