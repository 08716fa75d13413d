"""Figure of the effect of dropping the score on the variance, and of its best weight."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from benchmarks.figure_drawing import draw_measured
from benchmarks.saved_results import Record
from benchmarks.studies.total_derivative.exact_gradient_parts import exact_moments, exact_variance
from benchmarks.studies.total_derivative.studied_gaussians import (
    COEFFICIENTS,
    FIXED_LOC,
    HALF,
    PARAMETERS,
    SCALES,
    START,
    at_scale,
    at_step,
)
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure

HELPS, HURTS = "#e3f3ec", "#fbe8dc"

PART_LOOKS = {
    "path_variance": ("Var(path): score dropped", COLOURS[0], MARKERS[0]),
    "total_variance": ("Var(total): score kept,\nor closed-form entropy", COLOURS[2], MARKERS[1]),
    "score_variance": ("Var(score)", COLOURS[6], MARKERS[2]),
    "covariance": ("Cov(total, score)", COLOURS[5], MARKERS[3]),
}
WEIGHT_LOOKS = {
    "path_variance": ("score dropped, c = 1", COLOURS[0], MARKERS[0]),
    "total_variance": ("score kept, c = 0", COLOURS[2], MARKERS[1]),
    "best_variance": ("Var(total + c* score):\nbest weight of the score", COLOURS[4], MARKERS[4]),
}
NAMED_COEFFICIENTS = ((0, "kept"), (1, "dropped"))


def draw_figure(rows: Sequence[Record]) -> StyledFigure:
    """A column for each study, a row for each parameter; then the best weight, and the variance against the weight."""
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.2, 5.4), layout="constrained")
        axes = figure.subplot_mosaic([["line loc", "scale loc", "best"], ["line scale", "scale scale", "coefficient"]])
        for name in PARAMETERS:
            _draw_line(axes[f"line {name}"], rows, name)
            _draw_scales(axes[f"scale {name}"], rows, name)
        _draw_best(axes["best"], rows)
        _draw_coefficients(axes["coefficient"], rows)
        axes["line loc"].set_title("q goes to the target")
        axes["scale loc"].set_title(f"scale varies, loc = {FIXED_LOC:g}".replace("-", "−"))
        regions = [
            Patch(color=HELPS, label="dropping the score helps"),
            Patch(color=HURTS, label="dropping the score hurts"),
        ]
        handles = [*_handles(axes["line loc"]), *_handles(axes["scale loc"])[2:], *regions]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _handles(axes: Axes) -> list[Any]:
    return axes.get_legend_handles_labels()[0]


def _draw_line(axes: Axes, rows: Sequence[Record], name: str) -> None:
    steps = np.linspace(0, 1, 101)
    exact = [exact_moments(at_step(float(t)), name) for t in steps]
    boundary = (HALF - START["scale"]) / (1 - START["scale"])
    _shade(axes, -0.04, boundary, 1.04)
    _draw_fields(axes, _members(rows, "line", name), "t", steps, exact, PART_LOOKS)
    axes.axhline(0, color="grey", linewidth=0.5, zorder=0)
    axes.set(xlabel="t, from start (0) to target (1)", ylabel=f"(co)variance, ∂ / ∂ {name}")


def _draw_scales(axes: Axes, rows: Sequence[Record], name: str) -> None:
    scales = np.geomspace(SCALES[0], SCALES[-1], 200)
    _prepare_scale_axis(axes)
    _draw_fields(axes, _members(rows, "scale", name), "scale", scales, _exact_at_scales(scales, name), WEIGHT_LOOKS)
    axes.set(ylabel=f"variance, ∂ / ∂ {name}")


def _draw_best(axes: Axes, rows: Sequence[Record]) -> None:
    colour = COLOURS[4]
    _prepare_scale_axis(axes)
    for name, marker, size in zip(PARAMETERS, ("o", "x"), (5.0, 4.0), strict=True):
        look = {"fmt": marker, "markersize": size, "markerfacecolor": "none", "color": colour}
        _draw_field(axes, SCALES, _members(rows, "scale", name), "best_coefficient", label=f"∂ / ∂ {name}", **look)
    scales = np.linspace(SCALES[0], SCALES[-1], 100)
    exact = _exact_at_scales(scales, "loc")
    axes.plot(scales, [moments["exact_best_coefficient"] for moments in exact], color=colour, linewidth=0.9)
    for coefficient, words in NAMED_COEFFICIENTS:
        axes.axhline(coefficient, color="grey", linewidth=0.7, linestyle=":", zorder=0)
        axes.annotate(words, (SCALES[-1], coefficient), (0, 2), textcoords="offset points", ha="right", color="#555555")
    axes.legend(loc="upper left")
    axes.set(ylabel="best coefficient c*", title="best weight of the score")


def _draw_coefficients(axes: Axes, rows: Sequence[Record]) -> None:
    coefficients = np.linspace(COEFFICIENTS[0], COEFFICIENTS[-1], 101)
    colours = (COLOURS[3], COLOURS[5], COLOURS[1], COLOURS[6])
    for row, colour, marker in zip(_members(rows, "coefficient", "scale"), colours, MARKERS, strict=False):
        look = {"fmt": marker, "color": colour, "markersize": 3.5, "capsize": 2}
        label = f"scale² = {row['scale'] ** 2:.2g}"
        _draw_field(axes, COEFFICIENTS, row["by_coefficient"], "estimate_variance", label=label, **look)
        axes.plot(coefficients, exact_variance(row, "scale", coefficients), color=colour, linewidth=0.9)
    for coefficient, words in NAMED_COEFFICIENTS:
        axes.axvline(coefficient, color="grey", linewidth=0.7, linestyle=":", zorder=0)
        place = axes.get_xaxis_transform()
        axes.annotate(
            words, (coefficient, 0.42), (-2, 0), xycoords=place, textcoords="offset points", ha="right", color="#555555"
        )
    axes.legend(loc="upper center", frameon=True, framealpha=1, edgecolor="none", bbox_to_anchor=(0.42, 1.02))
    axes.set(xlabel="weight c of the score", ylabel="variance, ∂ / ∂ scale")


def _members(rows: Sequence[Record], study: str, name: str) -> list[Record]:
    return [row for row in rows if (row["study"], row["parameter"]) == (study, name)]


def _exact_at_scales(scales: np.ndarray, name: str) -> list[dict[str, float]]:
    return [exact_moments(at_scale(float(scale)), name) for scale in scales]


def _draw_fields(
    axes: Axes,
    members: Sequence[Record],
    place: str,
    line_places: np.ndarray,
    exact: Sequence[dict[str, float]],
    looks: Mapping[str, tuple[str, str, str]],
) -> None:
    places = [row[place] for row in members]
    for field, (label, colour, marker) in looks.items():
        _draw_field(axes, places, members, field, label=label, fmt=marker, color=colour, markersize=3.5, capsize=2)
        axes.plot(line_places, [moments[f"exact_{field}"] for moments in exact], color=colour, linewidth=0.9)


def _draw_field(axes: Axes, places: Sequence[float], members: Sequence[Record], field: str, **look: Any) -> None:
    values, errors = ([row[name] for row in members] for name in (field, f"{field}_se"))
    draw_measured(axes, places, values, errors, **look)


def _prepare_scale_axis(axes: Axes) -> None:
    _shade(axes, SCALES[0] - 0.05, HALF, SCALES[-1] + 0.05)
    axes.set_xlabel("scale of q / scale of target")


def _shade(axes: Axes, left: float, boundary: float, right: float) -> None:
    """Shades where dropping the score hurts, left of the boundary, and where it helps."""
    axes.axvspan(left, boundary, color=HURTS, zorder=-2, linewidth=0)
    axes.axvspan(boundary, right, color=HELPS, zorder=-2, linewidth=0)
    axes.set_xlim(left, right)
