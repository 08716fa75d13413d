"""Figure of signal-to-noise ratios against the samples in a bound and the bounds averaged."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.studies.estimator_atlas.gradient_signals import (
    GRADIENTS,
    SAMPLES_OF_AVERAGED,
    Signal,
    along,
    sizes_of,
    slope_in_theory,
)
from vae_jax.plotting.style import CONTRASTING_COLOURS, MARKERS, STYLE, StyledFigure

SIZE_LABELS = {"K": "K, samples in a bound", "M": "M, bounds averaged"}


def signal_figure(signals: Sequence[Signal]) -> Figure:
    """Signal-to-noise against K by either parameter, and against M."""
    contents = (
        ("inference parameter loc", "K", "loc"),
        ("model parameter prior_loc", "K", "prior_loc"),
        (f"loc, K = {SAMPLES_OF_AVERAGED}", "M", "loc"),
    )
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.7), layout="constrained")
        for axes, (title, size, parameter) in zip(figure.subplots(1, 3), contents, strict=True):
            chosen = [signal for signal in along(signals, size) if signal.parameter == parameter]
            _draw_signals(axes, chosen, size, parameter)
            axes.set_title(title)
            axes.set_xlabel(SIZE_LABELS[size])
        figure.axes[0].set_ylabel("signal-to-noise ratio of the gradient")
        figure.legend(handles=_handles(), loc="outside lower center", ncols=4)
    return figure


def _draw_signals(axes: Axes, signals: Sequence[Signal], size: str, parameter: str) -> None:
    """Points on lines with exact means, and the theory's slopes through their ends."""
    for place, gradient in enumerate(GRADIENTS):
        chosen = [signal for signal in signals if signal.gradient == gradient]
        sizes = sizes_of(chosen, size)
        known = np.array([signal.known_signal for signal in chosen])
        _draw_points(axes, sizes, chosen, place)
        axes.plot(sizes, known, color=CONTRASTING_COLOURS[place], linewidth=0.9, zorder=2)
        _draw_theory(axes, sizes, known, slope_in_theory(gradient, parameter, size))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")


def _draw_points(axes: Axes, sizes: np.ndarray, signals: Sequence[Signal], place: int) -> None:
    """Draws bars of two standard errors of the logarithm."""
    ratios = np.array([signal.signal_to_noise for signal in signals])
    factors = np.exp([2 * signal.log_se for signal in signals])
    axes.errorbar(
        sizes, ratios, yerr=[ratios - ratios / factors, ratios * factors - ratios], fmt=MARKERS[place],
        # The first lie underneath: larger, so that those of equal height show.
        markersize=6 - 1.5 * place, color=CONTRASTING_COLOURS[place], elinewidth=0.8, capsize=2,
    )  # fmt: skip


def _draw_theory(axes: Axes, sizes: np.ndarray, known: np.ndarray, slope: float) -> None:
    """A line of the slope through the later half of the points."""
    late = len(sizes) // 2
    centre = np.log(known[late:]).mean() - slope * np.log(sizes[late:]).mean()
    axes.plot(sizes, np.exp(centre) * sizes**slope, color="0.45", linewidth=0.9, linestyle="--", zorder=1)


def _handles() -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=0.9, label=name)
        for name, colour, marker in zip(GRADIENTS, CONTRASTING_COLOURS, MARKERS, strict=False)
    ]
    return [*handles, Line2D([], [], color="0.45", linewidth=0.9, linestyle="--", label="slope ±1/2")]
