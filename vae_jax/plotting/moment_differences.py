"""Means, standard deviations and correlations of an approximate posterior compared with a reference's."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vae_jax.inference.diagnostics import (
    MomentComparison,
    MomentDifference,
)
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

FIGURE_WIDTH = 6.0

SHOWN_ERRORS = 2.0
"""Standard errors that an error bar is long on each side."""


def moment_differences(comparison: MomentComparison, *, most: int = 30) -> Figure:
    """Plots each parameter's differences in mean and standard deviation from a reference, with two standard errors.

    Correlations, if there are any, are drawn against the reference's.

    Args:
        comparison: result of `vae_jax.inference.compare_moments`.
        most: largest number of parameters. Those with the largest differences are drawn.

    Raises:
        ValueError: `most` is below 1.

    Example:
        >>> from vae_jax.inference import compare_moments, known_moments
        >>> from vae_jax.plotting import moment_differences
        >>> reference = known_moments({"a": 0.0, "b": 0.0}, [[4.0, 1.0], [1.0, 1.0]])
        >>> mean_field = known_moments({"a": 1.0, "b": 0.0}, [[3.0, 0.0], [0.0, 0.75]])
        >>> [axes.get_title() for axes in moment_differences(compare_moments(mean_field, reference)).axes]
        ['mean', 'standard deviation', 'correlation']
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}: raise it")
    rows = comparison.parameters
    if len(rows) > most:
        kept = sorted(rows, key=lambda row: -max(abs(row.mean), abs(row.std)))[:most]
        rows = tuple(row for row in rows if row in kept)
    num_panels = 3 if comparison.correlations else 2
    with mpl.rc_context(STYLE):
        size = (FIGURE_WIDTH * (num_panels + 0.4) / 3.4, max(2.3, 0.7 + 0.16 * len(rows)))
        figure = StyledFigure(figsize=size, layout="constrained")
        panels = figure.subplots(1, num_panels)
        _draw_differences(list(panels[:2]), rows)
        if comparison.correlations:
            _draw_correlations(panels[2], comparison)
    return figure


def _draw_differences(panels: Sequence[Axes], rows: Sequence[MomentDifference]) -> None:
    places = np.arange(len(rows))
    columns = [
        ("mean", [row.mean for row in rows], [row.mean_se for row in rows], "difference / reference's std"),
        ("standard deviation", [row.std for row in rows], [row.std_se for row in rows], "relative difference"),
    ]
    for axes, (title, values, errors, label) in zip(panels, columns, strict=True):
        axes.axvline(0, color="0.45", linewidth=0.8)
        bars = SHOWN_ERRORS * np.array(errors)
        axes.errorbar(values, places, xerr=bars, fmt="o", markersize=3.5, color=COLOURS[0], elinewidth=1, capsize=2)
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(places, [])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        reach = max(np.abs(np.array(values)) + bars) * 1.15 or 1
        axes.set_xlim(-reach, reach)
    panels[0].set_yticks(places, [row.name for row in rows])
    panels[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def _draw_correlations(axes: Axes, comparison: MomentComparison) -> None:
    pairs = comparison.correlations
    axes.plot([-1, 1], [-1, 1], color="0.45", linewidth=0.8)
    axes.errorbar(
        [pair.reference for pair in pairs],
        [pair.approximation for pair in pairs],
        yerr=[SHOWN_ERRORS * pair.difference_se for pair in pairs],
        fmt="o", markersize=3.5, color=COLOURS[0], elinewidth=1, capsize=2,
    )  # fmt: skip
    axes.set_title("correlation")
    axes.set_xlabel("reference")
    axes.set_ylabel("approximation")
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
