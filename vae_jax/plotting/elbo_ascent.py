"""The ELBO of a fit by step, one panel of its figure."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.plotting.style import COLOURS

FITTED, REFERENCE = COLOURS[2], COLOURS[0]

MOST_POINTS = 2_000
"""Points of a cloud that are drawn at most."""


class ElboAscent(NamedTuple):
    """The estimates of the ELBO that an ascent made (nats)."""

    estimates: Float[np.ndarray, " T"]
    """One for each step."""
    window_means: Float[np.ndarray, " W"]
    """Means of windows of T / W steps."""
    window_mean_ses: Float[np.ndarray, " W"]
    """Standard errors of the means."""
    bound: float
    """log p(x), or an approximation of it; NaN where it is unknown."""
    converged: bool


def draw_ascent(axes: Axes, ascent: ElboAscent) -> None:
    """Draws estimates by step, their means by window with standard errors, and the bound."""
    history, means = ascent.estimates, ascent.window_means
    window = len(history) // len(means)
    steps = np.arange(1, len(history) + 1)
    shown = slice(None, None, max(1, len(history) // MOST_POINTS))
    axes.plot(steps[shown], history[shown], ".", markersize=1, color="0.75", rasterized=True, label="step")
    centers = (np.arange(len(means)) + 0.5) * window
    axes.errorbar(
        centers, means, yerr=ascent.window_mean_ses, fmt="o-", markersize=2.5, linewidth=0.9, elinewidth=0.9,
        color="black", label="mean of a window ± se",
    )  # fmt: skip
    axes.axhline(ascent.bound, color=REFERENCE, linewidth=0.9)
    spread = history[len(history) // 2 :].std()
    # The first window is the climb, next to which the rest would look level.
    low = min(np.quantile(history[window:], 0.02), means[1:].min()) - spread
    axes.set_ylim(low, np.nanmax([ascent.bound, means.max(), np.quantile(history, 0.98)]) + 2 * spread)
    axes.set_xlim(0, len(history) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.axvline(len(history), color="0.4", linewidth=0.8, linestyle=(0, (1, 1.5)))
    axes.set_title(f"stopped after {len(history):,} steps" if ascent.converged else f"after {len(history):,} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("ELBO (nats)")


def add_legend(figure: Figure, ascent_axes: Axes, handles: list[Any]) -> None:
    """Adds one legend above all panels: the handles of the ascent, then those of the others."""
    handles = [*ascent_axes.get_legend_handles_labels()[0], *handles]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2, handlelength=1.6)
