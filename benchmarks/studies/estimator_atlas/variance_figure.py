"""Figure of variances against the parameters of costs: points on exact lines."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.figure_drawing import draw_measured
from benchmarks.studies.estimator_atlas.cost_panels import Panel
from benchmarks.studies.estimator_atlas.estimator_variances import PARAMETERS, SAMPLES_OF_ESTIMATE, Lines, VariancePoint
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure


def variance_figure(panels: Sequence[Panel], points: Sequence[VariancePoint], lines: Lines) -> Figure:
    """Variance against k: a column for each cost, a row for each parameter of q."""
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 4.6), layout="constrained")
        grid = figure.subplots(len(PARAMETERS), len(panels), sharex="col", squeeze=False)
        for name, row in zip(PARAMETERS, grid, strict=True):
            row[0].set_ylabel(f"variance per sample, by {name}")
            for panel, axes in zip(panels, row, strict=True):
                chosen = [point for point in points if (point.cost, point.parameter) == (panel.problem.name, name)]
                _draw_panel(axes, panel, name, chosen, lines)
        for panel, top, bottom in zip(panels, *grid, strict=True):
            top.set_title(panel.title)
            bottom.set_xlabel(f"k ({panel.parameter})")
        figure.legend(handles=_handles(), loc="outside lower center", ncols=3)
    return figure


def _draw_panel(axes: Axes, panel: Panel, name: str, points: Sequence[VariancePoint], lines: Lines) -> None:
    """The variances of one cost's gradients in one parameter."""
    for estimator, colour, marker in zip(SAMPLES_OF_ESTIMATE, COLOURS, MARKERS, strict=False):
        members = [point for point in points if point.estimator == estimator]
        _draw_variances(axes, members, *lines[panel.problem.name, estimator, name], colour, marker)
    axes.set_xscale(panel.scale)
    axes.set_yscale("log")
    # Where the two sides of a coupled derivative cancel, a line falls to zero between two points.
    axes.set_ylim(bottom=min(point.variance for point in points if point.exact_variance) / 5)
    for estimator in sorted({point.estimator for point in points if not point.exact_variance}):
        axes.text(0.03, 0.03, estimator.replace("+", "+\n") + ": 0", transform=axes.transAxes, fontsize=6.5)


def _draw_variances(
    axes: Axes, points: Sequence[VariancePoint], places: np.ndarray, exact: np.ndarray, colour: str, marker: str
) -> None:
    """Draws points on their line. Variances of exactly zero have no place on the axis."""
    axes.plot(places, np.where(exact > 0, exact, np.nan), color=colour, linewidth=1)
    kept = [point for point in points if point.exact_variance]
    draw_measured(
        axes,
        [point.k for point in kept],
        [point.variance for point in kept],
        [point.variance_se for point in kept],
        fmt=marker, markersize=3, color=colour, capsize=1.5,
    )  # fmt: skip


def _handles() -> list[Line2D]:
    looks = zip(SAMPLES_OF_ESTIMATE, COLOURS, MARKERS, strict=False)
    return [
        Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1, label=_label(name))
        for name, colour, marker in looks
    ]


def _label(estimator: str) -> str:
    num_samples = SAMPLES_OF_ESTIMATE[estimator]
    return estimator if num_samples == 1 else f"{estimator} (N = {num_samples})"
