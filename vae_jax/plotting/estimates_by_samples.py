"""Figures of estimates and of their standard deviation against the number of samples, a series an estimator."""

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure
from vae_jax.studies.variance_study import VarianceStudy


def replicate_boxes(study: VarianceStudy) -> Figure:
    """Draws box plots of the replicates about the exact value by number of samples, one panel for each parameter.

    Boxes hold the middle half and whiskers the middle 98%. The axis is logarithmic on both sides of the exact value and
    linear next to it.

    Args:
        study: result of `vae_jax.study_variance`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> from vae_jax.plotting import replicate_boxes
        >>> from vae_jax.problems import SquareCost
        >>> params, sizes = {"loc": jnp.ones(()), "scale": jnp.ones(())}, {"num_samples": [1, 10]}
        >>> study = vj.study_variance(SquareCost(), params, jax.random.key(0), 20, estimators=["pathwise"], **sizes)
        >>> figure = replicate_boxes(study)
        >>> [axes.get_title() for axes in figure.axes], [label.get_text() for label in figure.axes[0].get_xticklabels()]
        (['cost', '∂ cost / ∂ loc', '∂ cost / ∂ scale'], ['1', '10'])
    """
    with mpl.rc_context(STYLE):
        figure, panels = _panels(study)
        for parameter, axes in panels.items():
            looks = _looks(study, parameter)
            width = 0.8 / len(looks)
            for place, (estimator, (colour, _)) in enumerate(looks.items()):
                errors = [
                    _finite(study.replicates_of(estimator, parameter, size)) - _centre(study, parameter)
                    for size in study.num_samples
                ]
                offset = (place - (len(looks) - 1) / 2) * width
                draw_boxes(axes, errors, np.arange(len(errors)) + offset, colour, width=0.8 * width)
            axes.axhline(0, color="black", linewidth=0.8, zorder=3)
            _scale_both_ways(axes, [row.std for row in study.rows if row.parameter == parameter])
            axes.set_xticks(range(len(study.num_samples)), [_short(size) for size in study.num_samples])
            axes.set_ylabel("estimate − exact")
        boxes = [Patch(color=colour, alpha=0.75, label=name) for name, (colour, _) in _looks(study).items()]
        exact = Line2D([], [], color="black", linewidth=0.8, label="exact value")
        _legend(figure, [*boxes, exact])
    return figure


def std_by_samples(study: VarianceStudy) -> Figure:
    """Plots standard deviations against the number of samples on logarithmic axes, measured points and exact lines.

    Bars are two standard errors. Where the exact variance is infinite there is no line, and the points are hollow.

    Args:
        study: result of `vae_jax.study_variance`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> from vae_jax.plotting import std_by_samples
        >>> from vae_jax.problems import SquareCost
        >>> params, sizes = {"loc": jnp.ones(()), "scale": jnp.ones(())}, {"num_samples": [1, 10]}
        >>> study = vj.study_variance(SquareCost(), params, jax.random.key(0), 20, estimators=["pathwise"], **sizes)
        >>> axes = std_by_samples(study).axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('samples per estimate', 'std of one estimate')
    """
    with mpl.rc_context(STYLE):
        figure, panels = _panels(study)
        for parameter, axes in panels.items():
            for place, (estimator, (colour, marker)) in enumerate(_looks(study, parameter).items()):
                rows = [study.row(estimator, parameter, size) for size in study.num_samples]
                hollow = rows[0].exact_std_status == "infinite"
                axes.errorbar(
                    study.num_samples,
                    [row.std for row in rows],
                    yerr=[2 * row.std_se for row in rows],
                    fmt=marker,
                    # The first lie underneath: larger, so that those of equal height show.
                    markersize=max(3.0, 5.5 - place),
                    markerfacecolor="none" if hollow else colour,
                    color=colour,
                    elinewidth=0.8,
                    capsize=2,
                )
                exact = [row.exact_std for row in rows if row.exact_std is not None]
                axes.plot(study.num_samples[: len(exact)], exact, color=colour, linewidth=0.9)
            axes.set_xscale("log")
            if any(0 < row.std < math.inf for row in study.rows if row.parameter == parameter):
                axes.set_yscale("log")
            axes.set_ylabel("std of one estimate")
        points = [
            Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=0.9, label=name)
            for name, (colour, marker) in _looks(study).items()
        ]
        _legend(figure, points + _hollow_key(study))
    return figure


def _looks(study: VarianceStudy, parameter: str | None = None) -> dict[str, tuple[str, str]]:
    """Colour and marker by estimator. Where the value is the same under each, one stands for all."""
    if parameter == study.parameters[0] and study.values_are_shared:
        return {study.estimators[0]: ("#555555", "o")}
    return dict(zip(study.estimators, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))


def _panels(study: VarianceStudy) -> tuple[Figure, dict[str, Axes]]:
    """Makes a figure with a panel for each parameter: the value's above the legend, the gradient's to the right."""
    value, *parameters = study.parameters
    columns = 1 + math.ceil(len(parameters) / 2)
    figure = StyledFigure(figsize=(max(2.4 * columns, 5.0), 4.2), layout="constrained")
    gradient = [*parameters, "."][: 2 * (columns - 1)]
    axes = figure.subplot_mosaic([[value, *gradient[::2]], [".", *gradient[1::2]]])
    panels = {name: axes[name] for name in study.parameters}
    for name, panel in panels.items():
        panel.set_title(title_of(study, name))
        panel.set_xlabel("samples per estimate")
    return figure, panels


def title_of(study: VarianceStudy, parameter: str) -> str:
    """The title of a panel."""
    value = study.parameters[0]
    shown = "ELBO" if value == "elbo" else value
    if parameter == value:
        return f"{shown} (nats)" if value == "elbo" else shown
    return f"∂ {shown} / ∂ {parameter}"


def _legend(figure: Figure, handles: list[Any]) -> None:
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.12), borderaxespad=0)


def _hollow_key(study: VarianceStudy) -> list[Line2D]:
    if all(row.exact_std_status != "infinite" for row in study.rows):
        return []
    look: dict[str, Any] = {"color": "grey", "marker": "o", "markersize": 4, "markerfacecolor": "none", "linestyle": ""}
    return [Line2D([], [], **look, label="exact variance infinite")]


def _scale_both_ways(axes: Axes, stds: list[float]) -> None:
    """A logarithmic axis for both signs, linear up to the first power of ten above the smallest of `stds`."""
    finite = [std for std in stds if 0 < std < math.inf]
    if not finite:
        return
    largest = math.floor(math.log10(max(abs(limit) for limit in axes.get_ylim())))
    linear = min(math.ceil(math.log10(min(finite))), largest)
    axes.set_yscale("symlog", linthresh=10.0**linear, linscale=0.7)
    decades = [10.0**power for power in range(linear, largest + 1)]
    axes.set_yticks([*(-decade for decade in reversed(decades)), 0, *decades])
    axes.minorticks_off()


def _short(size: int) -> str:
    return f"{size // 1000:,}k" if size >= 1000 and size % 1000 == 0 else f"{size:,}"


def draw_boxes(
    axes: Axes,
    boxes: Sequence[Any],
    places: Any,
    colour: str,
    *,
    width: float,
    orientation: Literal["vertical", "horizontal"] = "vertical",
) -> None:
    """Boxes of the middle half, with whiskers of the middle 98%.

    Args:
        axes: where to draw.
        boxes: the values of each.
        places: along the axis.
        colour: of all of them.
        width: of a box, in units of that axis.
        orientation: of the boxes.
    """
    drawn = axes.boxplot(
        boxes, positions=places, widths=width, whis=(1, 99), showfliers=False, patch_artist=True, manage_ticks=False,
        orientation=orientation,
    )  # fmt: skip
    for box in drawn["boxes"]:
        box.set(facecolor=colour, edgecolor=colour, alpha=0.75, linewidth=0.6)
    for line in (*drawn["whiskers"], *drawn["caps"]):
        line.set(color=colour, linewidth=0.7)
    for line in drawn["medians"]:
        line.set(color="white", linewidth=0.9)


def _finite(replicates: Any) -> Any:
    return replicates[np.isfinite(replicates)]


def _centre(study: VarianceStudy, parameter: str) -> float:
    """The exact mean by whichever estimator has one, else the mean of the replicates."""
    rows = [row for row in study.rows if row.parameter == parameter]
    exact = [row.exact_mean for row in rows if row.exact_mean is not None]
    return exact[0] if exact else rows[-1].mean
