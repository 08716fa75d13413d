"""A figure of Laplace's approximation: how close its Gaussian comes to a density, and its error."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from vae_jax.inference import FactorialApproximation
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

REACH = 4.0
"""Standard deviations of the Gaussian that are drawn on each side."""


def factorial_errors(approximations: Sequence[FactorialApproximation]) -> Figure:
    """Plots the integrand of N! and its Gaussian for the smallest N, and the error of log N! against N.

    The line is 1 / (12 N). An error that rounding may have caused is not drawn.

    Args:
        approximations: results of `vae_jax.inference.approximate_factorial`.

    Raises:
        ValueError: there is no approximation.

    Example:
        >>> from vae_jax.inference import approximate_factorial
        >>> from vae_jax.plotting import factorial_errors
        >>> figure = factorial_errors([approximate_factorial(number) for number in (1, 2, 5)])
        >>> [axes.get_title() for axes in figure.axes]
        ['N = 1', 'log N! − its approximation']
    """
    if not approximations:
        raise ValueError("approximations must be at least one, got none: approximate a factorial")
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(6.0, 2.6), layout="constrained")
        shape, errors = figure.subplots(1, 2)
        _draw_shape(shape, min(approximations, key=lambda each: each.number))
        _draw_errors(errors, approximations)
        figure.legend(loc="outside upper center", ncols=4, columnspacing=1.2, handlelength=1.6)
    return figure


def _draw_shape(axes: Axes, approximation: FactorialApproximation) -> None:
    """Integrand and Gaussian, both over the integrand's maximum."""
    number, mode, scale = approximation.number, approximation.mode, approximation.scale
    t = np.linspace(mode - REACH * scale, mode + REACH * scale, 801)
    inside = t[t > 0]
    integrand = np.exp(number * np.log(inside / mode) - (inside - mode))
    axes.plot(inside, integrand, color=COLOURS[0], linewidth=1.4, label="exp(N log t − t)")
    gaussian = np.exp(-0.5 * ((t - mode) / scale) ** 2)
    axes.plot(t, gaussian, color=COLOURS[2], linewidth=1.2, linestyle=(0, (4, 1.5)), label="Gaussian at its mode")
    axes.set_ylim(0, 1.05)
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_title(f"N = {number:,}")
    axes.set_xlabel("t")
    axes.set_ylabel("share of the maximum")


def _draw_errors(axes: Axes, approximations: Sequence[FactorialApproximation]) -> None:
    """Measured errors on the exact leading term."""
    numbers = np.array([each.number for each in approximations], float)
    # A decade at least, so that both axes have a power of ten.
    ends = np.array([numbers.min() / 3.2, numbers.max() * 3.2])
    axes.plot(ends, 1 / (12 * ends), color="black", linewidth=0.9, label="1 / (12 N)")
    drawn = sorted((each.number, each.error) for each in approximations if each.reliable)
    axes.plot(*np.array(drawn, float).reshape(-1, 2).T, "o", markersize=4, color=COLOURS[0], label="measured error")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_title("log N! − its approximation")
    axes.set_xlabel("N")
    axes.set_ylabel("nats")
