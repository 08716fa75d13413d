"""Events' counts compared with those that a mixture expects."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from vae_jax.inference.cavi import Component
from vae_jax.plotting.cavi.component_colours import GREY, component_colours
from vae_jax.plotting.style import STYLE, StyledFigure

MOST_PANELS = 16
"""Components whose counts are drawn: the largest."""


def counts_by_component(
    counts: Float[Array | np.ndarray, " N"],
    responsibilities: Float[Array | np.ndarray, "K N"],
    components: Sequence[Component],
    *,
    name: str = "count",
) -> Figure:
    """Plots the counts of each component, weighted by the responsibilities, against the model's Poisson.

    The Poisson's rate is averaged over its posterior, which makes it a negative binomial. With many events the two are
    nearly equal. Each panel shows the variance of the counts over their mean. It is 1 for a Poisson, and more where the
    model is too narrow.

    Args:
        counts: counts of the events [N].
        responsibilities: probabilities of the components for each event [K, N].
        components: components as `vae_jax.inference.cavi.components` returns them. The largest 16 are drawn.
        name: name of the counts.

    Raises:
        ValueError: no component has events.

    Example:
        >>> import numpy as np
        >>> from vae_jax.inference.cavi import Component
        >>> from vae_jax.plotting import counts_by_component
        >>> place = {"loc": (0.0, 0.0), "loc_std": (0.1, 0.1), "covariance": ((1.0, 0.0), (0.0, 1.0))}
        >>> one = Component(1, 4.0, 1.0, 0.1, **place, rate=5.0, rate_std=1.0, dispersion=0.4)
        >>> figure = counts_by_component(np.array([4.0, 5.0, 5.0, 7.0]), np.ones((1, 4)), [one], name="stations")
        >>> figure.get_supxlabel(), figure.axes[0].get_title("right")
        ('stations of an event', 'var/mean 0.4')
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
    mean, std = component.rate or 0.0, component.rate_std or math.inf
    concentration, rate = (mean / std) ** 2, mean / std**2
    return stats.nbinom(concentration, rate / (rate + 1))
