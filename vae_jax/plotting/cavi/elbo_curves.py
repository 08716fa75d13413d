"""Curves of the search for a mixture: ELBOs by sweep and by number of components."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from vae_jax.inference.cavi import Selection
from vae_jax.plotting.cavi.component_colours import GREY
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure


def elbo_by_sweep(selection: Selection) -> Figure:
    """Plots how far each restart of the best mixture is below the best ELBO, by sweep; better is up.

    A restart that ends at a lower optimum levels off at its distance.

    Args:
        selection: result of `vae_jax.inference.cavi.choose_num_components`.

    Example:
        >>> import jax
        >>> from vae_jax.inference.cavi import choose_num_components, gaussian_poisson_mixture, located_counts
        >>> from vae_jax.plotting import elbo_by_sweep
        >>> data = located_counts([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [9.1, 9.0]], [5, 5, 5, 5])
        >>> found = choose_num_components(gaussian_poisson_mixture, data, [1, 2], jax.random.key(0), num_restarts=2)
        >>> (axes,) = elbo_by_sweep(found).axes
        >>> axes.get_xlabel(), axes.get_ylabel(), len(axes.lines)  # two restarts, and the best once more
        ('sweep', 'nats below the best ELBO', 3)
    """
    best = selection.best
    histories = np.asarray(best.ascent.restart_histories, float)
    end = best.elbo
    floor = max(1e-3, best.rounding)
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(4.0, 2.8), layout="constrained")
        axes = figure.subplots()
        for history in histories:
            reached = history[np.isfinite(history)]
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
                *(
                    [
                        Line2D(
                            [],
                            [],
                            color=GREY,
                            linewidth=0.8,
                            label=f"{num_others} other restart{'s' * (num_others > 1)}",
                        )
                    ]
                    if num_others
                    else []
                ),
            ],
            loc="outside lower center",
            ncols=2,
        )
    return figure


def _below(history: np.ndarray, end: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, len(history) + 1), np.maximum(end - history, floor)


def elbo_by_num_components(selection: Selection) -> Figure:
    """Plots the best ELBO of each number of components, with log K! and without, and the ends of all restarts.

    The panel on the right shows only the numbers near the best one, where log K! can be seen.

    Args:
        selection: result of `vae_jax.inference.cavi.choose_num_components`.

    Example:
        >>> import jax
        >>> from vae_jax.inference.cavi import choose_num_components, gaussian_poisson_mixture, located_counts
        >>> from vae_jax.plotting import elbo_by_num_components
        >>> data = located_counts([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0], [9.1, 9.0]], [5, 5, 5, 5])
        >>> found = choose_num_components(gaussian_poisson_mixture, data, [1, 2], jax.random.key(0), num_restarts=2)
        >>> [axes.get_title() for axes in elbo_by_num_components(found).axes]
        ['all numbers', 'near the best']
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
