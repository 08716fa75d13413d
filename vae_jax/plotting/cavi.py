"""Figures of a mixture that coordinate ascent has fitted: where its components are, how it fits, how it was found."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from scipy import stats

from vae_jax.inference.cavi import Component, Selection
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

FEW = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
"""Okabe and Ito's, for up to six components."""

TWELVE = (
    "#9F0162", "#009F81", "#FF5AAF", "#00FCCF", "#8400CD", "#008DF9",
    "#00C2F9", "#FFB2FD", "#A40122", "#E20134", "#FF6E3A", "#FFC33B",
)  # fmt: skip
"""Twelve colours chosen for readers with any of the three colour deficiencies.

Reference: Krzywinski (2020), "Designing for color blindness".
"""

FIFTEEN = (
    "#68023F", "#008169", "#EF0096", "#00DCB5", "#FFCFE2", "#003C86", "#9400E6", "#009FFA",
    "#FF71FD", "#7CFFFA", "#6A0213", "#008607", "#F60239", "#00E307", "#FFDC3D",
)  # fmt: skip
"""Fifteen of the same kind; more components use them again, and are told apart by their numbers."""

MOST_PANELS = 16
"""Components whose counts are drawn: the largest."""

GREY = "#8C8C8C"


def component_colours(num_components: int) -> tuple[str, ...]:
    """A colour for each component."""
    palette = next((colours for colours in (FEW, TWELVE) if num_components <= len(colours)), FIFTEEN)
    return tuple(palette[number % len(palette)] for number in range(num_components))


def responsibility_map(
    positions: Float[Array | np.ndarray, "N D"],
    responsibilities: Float[Array | np.ndarray, "K N"],
    components: Sequence[Component],
    *,
    names: Sequence[str] = ("x", "y"),
    counts: Float[Array | np.ndarray, " N"] | None = None,
    count_name: str | None = None,
) -> Figure:
    """Events on a map, each in the mixture of the components' colours by its responsibilities.

    The ellipses are two standard deviations of events about a component's place, which hold 86% of its events if it is
    right. Crosses are two posterior standard deviations of the place itself. Columns whose names begin with lon and lat
    are degrees: a degree of longitude is then as long as it is at the events' mean latitude.

    Args:
        positions: of the events, of which D is 2.
        responsibilities: of the components for them.
        components: as `vae_jax.inference.cavi.components` gives them. Empty ones are not drawn.
        names: of the two coordinates.
        counts: the area of an event's dot, if given.
        count_name: of the counts.

    Raises:
        ValueError: the positions have not two columns.
    """
    points, shares = np.asarray(positions, float), np.asarray(responsibilities, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"positions must have two columns, got shape {points.shape}: a map has two axes")
    palette = component_colours(len(components))
    colours = shares.T @ np.array([to_rgb(colour) for colour in palette])
    drawn = [each for each in components if not each.is_empty]
    limits = _limits(points, drawn)
    with mpl.rc_context(STYLE):
        width, height = np.diff(limits, axis=1)[:, 0] * [1, _stretch(points, names)]
        scale = 3.7 / max(width, height)
        figure = StyledFigure(figsize=(scale * width + 1.9, max(scale * height, 2.2) + 0.5), layout="constrained")
        axes = figure.subplots()
        # Large dots first, for they would cover the small ones.
        order = np.random.default_rng(0).permutation(len(points))
        if counts is not None:
            order = order[np.argsort(-np.asarray(counts, float)[order], kind="stable")]
        axes.scatter(
            *points[order].T,
            c=np.clip(colours, 0, 1)[order],
            s=_areas(len(points), counts)[order],
            alpha=0.75,
            linewidths=0,
            rasterized=len(points) > 5000,
        )
        for each in drawn:
            _draw_component(axes, each, palette[each.number - 1])
        _label(axes, drawn, palette)
        _frame(axes, points, limits, names)
        axes.legend(
            handles=[_handle(each, palette[each.number - 1]) for each in drawn],
            loc="upper left",
            bbox_to_anchor=(1.03, 1.0),
            borderaxespad=0,
            handletextpad=0.3,
            title=_legend_title(counts, count_name),
            alignment="left",
            labelspacing=0.45,
            fontsize=7,
            title_fontsize=7,
        )
    return figure


def _areas(num_events: int, counts: Float[Array | np.ndarray, " N"] | None) -> np.ndarray:
    """Of the dots, in points squared: as the counts, and less for more events."""
    base = float(np.clip(9_000 / num_events, 1.0, 14.0))
    if counts is None:
        return np.full(num_events, base)
    values = np.asarray(counts, float)
    return base * np.clip(values / max(values.mean(), 1e-9), 0.15, 8)


def _draw_component(axes: Axes, component: Component, colour: str) -> None:
    """The ellipse of its events, and the cross of its place."""
    radii, angle = _ellipse(component)
    ellipse = Ellipse(
        (component.loc[0], component.loc[1]), *(2 * radii), angle=math.degrees(angle), fill=False, edgecolor=colour,
        linewidth=1.3, path_effects=[withStroke(linewidth=2.6, foreground="white")], zorder=3,
    )  # fmt: skip
    axes.add_patch(ellipse)
    axes.errorbar(
        component.loc[0], component.loc[1], 2 * component.loc_sd[1], 2 * component.loc_sd[0],
        fmt="none", ecolor="black", elinewidth=0.9, zorder=4,
    )  # fmt: skip


def _ellipse(component: Component) -> tuple[np.ndarray, float]:
    """The half axes of two standard deviations, the longer first, and its angle."""
    variances, vectors = np.linalg.eigh(np.array(component.covariance))
    return 2 * np.sqrt(variances[::-1]), math.atan2(vectors[1, 1], vectors[0, 1])


def _label(axes: Axes, components: Sequence[Component], palette: Sequence[str]) -> None:
    """A badge on each ellipse, where it is farthest from the other badges and places."""
    taken = [np.array(each.loc) for each in components]
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)])
    for each in components:
        radii, angle = _ellipse(each)
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        around = np.array(each.loc) + (rotation @ (radii[:, None] * circle)).T
        room = np.linalg.norm(around[:, None] - np.stack(taken)[None], axis=2).min(1)
        spot = around[room.argmax()]
        taken.append(spot)
        colour = palette[each.number - 1]
        axes.annotate(
            str(each.number), (spot[0], spot[1]), ha="center", va="center", fontsize=6.5, fontweight="bold", zorder=5,
            color="black" if _luminance(colour) > 0.35 else "white",
            bbox={"boxstyle": "round,pad=0.22,rounding_size=0.6", "fc": colour, "ec": "white", "linewidth": 0.6},
        )  # fmt: skip


def _luminance(colour: str) -> float:
    """Of the colour, from 0 for black to 1 for white."""
    return float(np.array([0.2126, 0.7152, 0.0722]) @ np.array(to_rgb(colour)) ** 2.2)


def _stretch(points: np.ndarray, names: Sequence[str]) -> float:
    """How long a unit of the second coordinate is in units of the first: on a map a degree of longitude is shorter."""
    latitude = points[:, 1].mean()
    return 1 / math.cos(math.radians(latitude)) if _is_map(names) and abs(latitude) < 80 else 1.0


def _is_map(names: Sequence[str]) -> bool:
    return names[0].lower().startswith("lon") and names[1].lower().startswith("lat")


def _limits(points: np.ndarray, components: Sequence[Component]) -> np.ndarray:
    """The least and the greatest of each coordinate of events and ellipses, with some margin [2, 2]."""
    extent = max(np.ptp(points, axis=0).max(), 1e-6)
    low, high = points.min(0), points.max(0)
    for each in components:
        loc, reach = np.array(each.loc), 2 * np.sqrt(np.diagonal(np.array(each.covariance)))
        # An ellipse of few events may be far larger than the data.
        low = np.minimum(low, np.maximum(loc - reach, low - extent / 4))
        high = np.maximum(high, np.minimum(loc + reach, high + extent / 4))
    return np.stack([low - 0.04 * extent, high + 0.04 * extent], 1)


def _frame(axes: Axes, points: np.ndarray, limits: np.ndarray, names: Sequence[str]) -> None:
    """Equal lengths on both axes, and degrees as maps write them."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    axes.set_aspect(_stretch(points, names), adjustable="box")
    axes.set_xlabel("longitude" if _is_map(names) else names[0])
    axes.set_ylabel("latitude" if _is_map(names) else names[1])
    if _is_map(names):
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees((value + 180) % 360 - 180, "EW")))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _degrees(value, "NS")))


def _degrees(value: float, letters: str) -> str:
    """As 175°W."""
    letter = "" if value in (0, -180) else letters[int(value < 0)]
    return f"{abs(value):g}°{letter}"


def _handle(component: Component, colour: str) -> Line2D:
    label = f"{component.number}:  {component.num_events:,.0f}"
    if component.rate is not None:
        label += f", {component.rate:.3g}"
    return Line2D([], [], color=colour, marker="o", linestyle="none", markersize=5, label=label)


def _legend_title(counts: Float[Array | np.ndarray, " N"] | None, name: str | None) -> str:
    if counts is None:
        return "component:  events"
    return f"component:  events,\n{name or 'count'} an event\n(dot area: {name or 'count'})"


def counts_by_component(
    counts: Float[Array | np.ndarray, " N"],
    responsibilities: Float[Array | np.ndarray, "K N"],
    components: Sequence[Component],
    *,
    name: str = "count",
) -> Figure:
    """Counts by component, weighted by the responsibilities, against the Poisson that the model has for them.

    The Poisson's rate is averaged over its posterior, which makes it a negative binomial; with many events that is all
    but the same. The variance over the mean of the counts stands beside: it is 1 for a Poisson, and more where the
    model is too narrow.

    Raises:
        ValueError: no component has events.
    """
    numbers, shares = np.asarray(counts, float), np.asarray(responsibilities, float)
    drawn = [each for each in components if not each.is_empty][:MOST_PANELS]
    if not drawn:
        raise ValueError("components must hold one with events, got none: fit some events")
    palette = component_colours(len(components))
    num_columns = min(4, len(drawn))
    num_rows = math.ceil(len(drawn) / num_columns)
    with mpl.rc_context(STYLE):
        size = (1.0 + 1.5 * num_columns, 0.75 + 1.15 * num_rows)
        figure = StyledFigure(figsize=size, layout="constrained")
        panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes, each in zip(panels, drawn, strict=False):
            _draw_counts(axes, each, numbers, shares[each.number - 1], palette[each.number - 1])
        for axes in panels[len(drawn) :]:
            axes.remove()
        figure.supxlabel(f"{name} of an event", fontsize=8)
        figure.supylabel("expected events", fontsize=8)
        figure.legend(
            handles=[
                Line2D([], [], color=GREY, marker="s", linestyle="none", markersize=6, label="events, in bins"),
                Line2D([], [], color="black", linewidth=1, label="the model's Poisson"),
            ],
            loc="outside upper center",
            ncols=2,
        )
    return figure


def _draw_counts(axes: Axes, component: Component, counts: np.ndarray, shares: np.ndarray, colour: str) -> None:
    predictive = _predictive(component)
    heard = counts[shares > 0.01]
    low = min(heard.min(initial=np.inf), predictive.ppf(0.001))
    high = max(heard.max(initial=0), predictive.ppf(0.999))
    width = max(1, math.ceil((high - low + 1) / 16))
    edges = np.arange(low, high + width + 1, width)
    axes.hist(counts, edges - 0.5, weights=shares, color=colour, alpha=0.65)
    mass = component.num_events * np.diff(predictive.cdf(edges - 1))
    axes.stairs(mass, edges - 0.5, color="black", linewidth=0.9)
    axes.set_title(f"{component.number}", loc="left", fontsize=8, fontweight="bold", pad=2)
    axes.set_title(f"var/mean {component.dispersion:.1f}", loc="right", fontsize=7, pad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.tick_params(labelsize=7, pad=2)


def _predictive(component: Component) -> stats.distributions.rv_frozen:
    """Counts of new events: a Poisson whose rate is Gamma under q."""
    mean, sd = component.rate or 0.0, component.rate_sd or math.inf
    concentration, rate = (mean / sd) ** 2, mean / sd**2
    return stats.nbinom(concentration, rate / (rate + 1))


def elbo_by_sweep(selection: Selection) -> Figure:
    """How far each restart of the best number of components is below the best end, by sweep; better is up.

    A restart that ends at a lower optimum levels off at its distance.
    """
    best = selection.best
    histories = np.asarray(best.ascent.restart_histories, float)
    end = best.elbo
    floor = max(1e-3, best.rounding)
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(4.0, 2.8), layout="constrained")
        axes = figure.subplots()
        for history in histories:
            reached = history[~np.isnan(history)]
            axes.plot(*_below(reached, end, floor), color=GREY, linewidth=0.5, alpha=0.5)
        axes.plot(*_below(best.elbo_history, end, floor), color=COLOURS[0], linewidth=1.6)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_yaxis()
        axes.set_xlabel("sweep")
        axes.set_ylabel("nats below the best ELBO")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
        axes.set_title(f"{best.num_components} components, best ELBO {end:,.2f} nats".replace("-", "−"))
        num_others = len(histories) - 1
        figure.legend(
            handles=[
                Line2D([], [], color=COLOURS[0], linewidth=1.6, label="best restart"),
                *([Line2D([], [], color=GREY, linewidth=0.8, label=f"{num_others} others")] if num_others else []),
            ],
            loc="outside lower center",
            ncols=2,
        )
    return figure


def _below(history: np.ndarray, end: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(history) + 1), np.maximum(end - history, floor)


def elbo_by_num_components(selection: Selection) -> Figure:
    """The best ELBO of each number of components, with log K! and without, and the ends of all restarts.

    The panel on the right shows the largest numbers' alone, where log K! can be seen.
    """
    candidates = selection.candidates
    near = [each for each in candidates if selection.best.score - each.score <= _window(selection)]
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(6.0, 2.8), layout="constrained")
        whole, top = figure.subplots(1, 2)
        for axes, shown in ((whole, candidates), (top, near)):
            _draw_bounds(axes, shown, selection)
        whole.set_ylabel("nats")
        whole.set_title("all numbers")
        top.set_title("near the best")
        scores = [each.score for each in near] + [each.elbo for each in near]
        margin = 0.08 * max(max(scores) - min(scores), 1e-3 * abs(max(scores)), 1.0)
        top.set_ylim(min(scores) - margin, max(scores) + margin)
        handles, labels = whole.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, columnspacing=1.2)
    return figure


def _window(selection: Selection) -> float:
    """Nats below the best that are near it: some of log K!, and at least three numbers."""
    gaps = sorted(selection.best.score - each.score for each in selection.candidates)
    return max(6 * selection.best.log_symmetries, gaps[min(2, len(gaps) - 1)])


def _draw_bounds(axes: Axes, candidates: Sequence, selection: Selection) -> None:
    numbers = [each.num_components for each in candidates]
    for each in candidates:
        ends = np.asarray(each.ascent.restart_elbos, float)
        axes.plot(
            np.full(len(ends), each.num_components), ends, "_", color=GREY, markersize=5, alpha=0.6,
            label="all restarts" if each is candidates[0] else None, zorder=1,
        )  # fmt: skip
    axes.plot(numbers, [each.elbo for each in candidates], "s-", color=COLOURS[3], markersize=3, linewidth=1,
              label="best ELBO")  # fmt: skip
    axes.plot(numbers, [each.score for each in candidates], "o-", color=COLOURS[0], markersize=3.5, linewidth=1,
              label="best ELBO + log K!")  # fmt: skip
    best = selection.best
    axes.plot(best.num_components, best.score, "o", markersize=9, markerfacecolor="none",
              markeredgecolor="black", markeredgewidth=0.8, label="highest")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace("-", "−")))
    axes.set_xlabel("number of components K")
