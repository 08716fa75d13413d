"""Figures of the log evidence: every estimator's error, and the signs that warn of it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vae_jax.inference.evidence import ESTIMATES
from vae_jax.inference.evidence.evidence_estimate import HIGHEST_SHAPE
from vae_jax.plotting.style import CONTRASTING_COLOURS, MARKERS, STYLE, StyledFigure

LINEAR_NATS = 0.1
"""Differences smaller than this are on a linear scale."""

SPREAD = 0.15
"""Distance between estimators at one place."""

MOST_TICKS = 12


def evidence_by_latents(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plots errors of estimates of log p(x), their effective sample sizes and Pareto k by the number of latents.

    Hollow points are not reliable.

    Args:
        rows: one row for each estimate, with num_latents, estimator (a key of `vae_jax.inference.evidence.ESTIMATES`),
            error (nats), log_evidence_se (nats), effective_sample_size, num_samples, pareto_k and reliable. Every
            estimator needs a row.

    Raises:
        ValueError: there are no rows.

    Example:
        >>> from vae_jax.inference.evidence import ESTIMATES
        >>> from vae_jax.plotting import evidence_by_latents
        >>> row = {"num_latents": 5, "error": 0.01, "log_evidence_se": 0.01, "pareto_k": 0.2, "reliable": True}
        >>> row |= {"effective_sample_size": 800.0, "num_samples": 1000}
        >>> figure = evidence_by_latents([{**row, "estimator": name} for name in ESTIMATES])
        >>> [axes.get_title() for axes in figure.axes][1:], figure.axes[0].get_xlabel()
        (['effective sample size', 'Pareto k'], 'number of latents')
    """
    return _figure(rows, BY_LATENTS, [row["error"] for row in rows])


def evidence_by_image(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plots estimates of log p(x) minus the importance-sampling one, effective sample sizes and Pareto k by image.

    Hollow points are not reliable.

    Args:
        rows: one row for each estimate, with image, estimator (a key of `vae_jax.inference.evidence.ESTIMATES`),
            log_evidence (nats), log_evidence_se (nats), effective_sample_size, num_samples, pareto_k and reliable.

    Raises:
        ValueError: there are no rows.

    Example:
        >>> from vae_jax.inference.evidence import ESTIMATES
        >>> from vae_jax.plotting import evidence_by_image
        >>> row = {"image": 0, "log_evidence": -90.0, "log_evidence_se": 0.1, "pareto_k": 0.2, "reliable": True}
        >>> row |= {"effective_sample_size": 800.0, "num_samples": 1000}
        >>> figure = evidence_by_image([{**row, "estimator": name} for name in ESTIMATES])
        >>> [axes.get_title() for axes in figure.axes][1:], figure.axes[0].get_xlabel()
        (['effective sample size', 'Pareto k'], 'image')
    """
    reference = {row["image"]: row["log_evidence"] for row in rows if row["estimator"] == "importance_sampling"}
    return _figure(rows, BY_IMAGE, [row["log_evidence"] - reference[row["image"]] for row in rows])


class EvidenceAxis(NamedTuple):
    """The quantity that the estimates are drawn against."""

    field: str
    """The field of the rows along the horizontal axis."""
    label: str
    reference: str
    """The value that is subtracted from the estimates."""
    line_alpha: float
    """Opacity of lines between places, which mean nothing where their order is arbitrary."""


BY_LATENTS = EvidenceAxis("num_latents", "number of latents", "exact log p(x)", 0.5)
BY_IMAGE = EvidenceAxis("image", "image", "importance sampling", 0.0)


def _figure(rows: Sequence[Mapping[str, Any]], comparison: EvidenceAxis, differences: Sequence[float]) -> Figure:
    if not rows:
        raise ValueError("rows must be at least one, got none: estimate something")
    places = sorted({row[comparison.field] for row in rows})
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.7), layout="constrained")
        error, size, shape = figure.subplots(1, 3)
        for number, name in enumerate(ESTIMATES):
            kept = [index for index, row in enumerate(rows) if row["estimator"] == name]
            own = [rows[index] for index in kept]
            x = np.array([places.index(row[comparison.field]) for row in own]) + (number - 1.5) * SPREAD
            look = {"color": CONTRASTING_COLOURS[number], "marker": MARKERS[number], "alpha": comparison.line_alpha}
            errors = np.array([row["log_evidence_se"] for row in own])
            _draw(error, x, np.array([differences[index] for index in kept]), own, look=look, errors=errors)
            shares = np.array([row["effective_sample_size"] / row["num_samples"] for row in own])
            _draw(size, x, shares, own, look=look)
            _draw(shape, x, np.array([row["pareto_k"] for row in own]), own, look=look)
        _finish(error, size, shape)
        error.set_title(f"estimate − {comparison.reference}")
        for axes in (error, size, shape):
            axes.margins(y=0.08)
            _label_places(axes, places, comparison.label)
        figure.legend(handles=_handles(rows), loc="outside upper center", ncols=5, columnspacing=1.2, handlelength=1.4)
    return figure


def _draw(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    *,
    look: Mapping[str, Any],
    errors: Any = None,
) -> None:
    """Points, hollow where they are not reliable, with error bars of one standard error where there are errors."""
    values = np.where(np.isfinite(values), values, np.nan)
    axes.plot(x, values, linewidth=0.7, alpha=look["alpha"], color=look["color"])
    if errors is not None:
        axes.errorbar(x, values, errors, fmt="none", ecolor=look["color"], elinewidth=0.9, capsize=1.5)
    reliable = np.array([row["reliable"] for row in rows], bool)
    for kept, face in ((reliable, look["color"]), (~reliable, "white")):
        axes.plot(
            x[kept], values[kept], linestyle="none", marker=look["marker"], markersize=4,
            markeredgecolor=look["color"], markerfacecolor=face, markeredgewidth=0.9,
        )  # fmt: skip


def _finish(error: Axes, size: Axes, shape: Axes) -> None:
    for axes, level in ((error, 0.0), (shape, HIGHEST_SHAPE)):
        axes.axhline(level, color="black", linewidth=0.8, zorder=0, linestyle="-" if level == 0 else (0, (4, 2)))
    error.set_yscale("symlog", linthresh=LINEAR_NATS)
    error.set_ylabel("nats")
    size.set_yscale("log")
    size.set_title("effective sample size")
    size.set_ylabel("share of the samples")
    shape.set_title("Pareto k")
    shape.set_ylabel("shape of the weights' tail")


def _label_places(axes: Axes, places: Sequence[int], label: str) -> None:
    axes.set_xlabel(label)
    axes.set_xlim(-0.6, len(places) - 0.4)
    if len(places) <= MOST_TICKS:
        axes.set_xticks(range(len(places)), [f"{place:,}" for place in places])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{places[int(x)]:,}" if 0 <= x < len(places) else "")
        )


def _handles(rows: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    handles = [
        Line2D(
            [], [], color=CONTRASTING_COLOURS[number], marker=MARKERS[number], markersize=4, linewidth=0.7, label=label
        )
        for number, label in enumerate(ESTIMATES.values())
    ]
    if not all(row["reliable"] for row in rows):
        look: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": "0.3", "linestyle": "none"}
        handles.append(Line2D([], [], marker="o", markersize=4, label="unreliable", **look))
    return handles
