"""A map of events and of the components that they belong to."""

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
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vae_jax.inference.cavi import Component
from vae_jax.plotting.cavi.component_colours import component_colours
from vae_jax.plotting.style import STYLE, StyledFigure


def responsibility_map(
    positions: Float[Array | np.ndarray, "N D"],
    responsibilities: Float[Array | np.ndarray, "K N"],
    components: Sequence[Component],
    *,
    names: Sequence[str] = ("x", "y"),
    counts: Float[Array | np.ndarray, " N"] | None = None,
    count_name: str | None = None,
) -> Figure:
    """Plots events on a map, each in the components' colours mixed by its responsibilities.

    The ellipses are two standard deviations of events about a component's place. They hold 86% of its events if the
    model is right. Crosses are two posterior standard deviations of the place itself. If the names begin with lon and
    lat, the positions are degrees, and a degree of longitude is as long as at the events' mean latitude.

    Args:
        positions: positions of the events [N, 2].
        responsibilities: probabilities of the components for each event [K, N].
        components: components as `vae_jax.inference.cavi.components` returns them. Empty ones are not drawn.
        names: names of the two coordinates.
        counts: counts of the events [N], shown by the areas of their dots. By default all areas are equal.
        count_name: name of the counts in the legend.

    Raises:
        ValueError: the positions do not have two columns.

    Example:
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import Component
        >>> from vae_jax.plotting import responsibility_map
        >>> place = {"loc": (10.0, 50.0), "loc_std": (0.1, 0.1), "covariance": ((1.0, 0.0), (0.0, 1.0))}
        >>> events, one = np.array([[9.0, 50.0], [11.0, 50.0], [10.0, 51.0]]), Component(1, 3.0, 1.0, 0.0, **place)
        >>> figure = responsibility_map(events, np.ones((1, 3)), [one], names=("lon", "lat"))
        >>> (axes,) = figure.axes
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('longitude', 'latitude')
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
    """Areas of the dots, in points squared: as the counts, and less for more events."""
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
        component.loc[0], component.loc[1], 2 * component.loc_std[1], 2 * component.loc_std[0],
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
    """Luminance of a colour, from 0 for black to 1 for white."""
    return float(np.array([0.2126, 0.7152, 0.0722]) @ np.array(to_rgb(colour)) ** 2.2)


def _stretch(points: np.ndarray, names: Sequence[str]) -> float:
    """Length of a unit of the second coordinate in units of the first: on a map a degree of longitude is shorter."""
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
