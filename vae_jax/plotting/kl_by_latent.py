"""Figures of the KL divergence latent by latent."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from vae_jax.plotting.style import COLOURS, CONTRASTING_COLOURS, MARKERS, STYLE, StyledFigure

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

MAX_APART = 60
"""Most bars with gaps between them: those between more would come out some wide and some narrow."""

MAX_NAMED = 20
"""Most latents that are named under their bars."""

LEAST_VARIANCE = 1e-6
"""Smaller variances are shown at the edge."""

ACTIVE, INACTIVE = COLOURS[0], COLOURS[3]

LAYER_STYLES = ("-", (0, (1, 1)), (0, (4, 1.5)))


def kl_by_latent(
    kl: Float[Array | np.ndarray, " D"],
    *,
    kl_se: Float[Array | np.ndarray, " D"] | None = None,
    variance_of_means: Float[Array | np.ndarray, " D"],
    threshold: float,
    layers: Mapping[str, int] | None = None,
) -> Figure:
    """Plots the KL of every latent from the largest down, and below it the variance of the latent's mean.

    A latent is active if that variance is above the threshold. Error bars are two standard errors. Every layer of
    latents has a panel. An estimate of the KL in a hierarchical model may be below zero; the panel counts these.

    Args:
        kl: KL(q(z_d|x) || p(z_d)) of each latent, averaged over images [D] (nats).
        kl_se: standard errors of the averages [D] (nats).
        variance_of_means: Var_x(E_q[z_d|x]) of each latent [D].
        threshold: variance above which a latent is active.
        layers: number of latents in each layer, by name and in their order. By default there is one layer.

    Raises:
        ValueError: the sizes of the layers do not add up to D.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import kl_by_latent
        >>> kl, variance = np.array([0.0, 3.0, 1.5]), np.array([0.0, 0.9, 0.5])
        >>> figure = kl_by_latent(kl, variance_of_means=variance, threshold=0.01)
        >>> bars, variances = figure.axes
        >>> bars.get_title(), [label.get_text() for label in variances.get_xticklabels()]
        ('2 of 3 active, 4.5 nats', ['z₂', 'z₃', 'z₁'])
    """
    heights, variances = np.asarray(kl, dtype=float), np.asarray(variance_of_means, dtype=float)
    errors = None if kl_se is None else 2 * np.asarray(kl_se, dtype=float)
    parts = _parts(len(heights), layers)
    sizes = [len(places) for places in parts.values()]
    with mpl.rc_context(STYLE):
        width = min(5.5, 3.0 + 0.08 * len(heights)) if len(parts) == 1 else 7.0
        figure = StyledFigure(figsize=(width, 3.4), layout="constrained")
        panels = figure.subplots(
            2, len(parts), squeeze=False, sharex="col", sharey="row", height_ratios=(2, 1),
            width_ratios=[max(size, max(sizes) / 2) for size in sizes],
        )  # fmt: skip
        for (name, places), (bars, dots) in zip(parts.items(), panels.T, strict=True):
            order = places[np.argsort(-heights[places], kind="stable")]
            active = variances[order] > threshold
            _draw_bars(bars, heights[order], None if errors is None else errors[order], active)
            _draw_variances(dots, variances[order], active, threshold)
            title = f"{active.sum()} of {len(order)} active, {heights[order].sum():.1f} nats"
            bars.set_title(f"{name}\n{title}" if name else title, fontsize=STYLE["font.size"])
            _name_latents(dots, order)
        _limit_variances(panels[1], variances, threshold)
        panels[0, 0].set_ylim(bottom=0)
        panels[0, 0].set_ylabel("KL (nats per image)")
        panels[1, 0].set_ylabel("variance of\nE[z | x]")
        figure.align_ylabels(panels[:, 0])
        keys: list[Patch | Line2D] = [
            Patch(color=colour, label=name)
            for name, colour, some in (
                ("active", ACTIVE, np.any(variances > threshold)),
                ("inactive", INACTIVE, np.any(variances <= threshold)),
            )
            if some
        ]
        keys.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8, label=f"active above {threshold:g}"))
        figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


def kl_by_rank(
    runs: Mapping[str, Float[Array | np.ndarray, " _"]],
    *,
    layers: Mapping[str, Mapping[str, int]] | None = None,
) -> Figure:
    """Plots the KL of every latent from the largest down, a line for each run, and each run's sum.

    An estimate below zero, which a latent of a hierarchical model may have, counts in the sum and is not shown.

    Args:
        runs: KL(q(z_d|x) || p(z_d)) of each latent, averaged over images [D] (nats), by the names of the runs.
        layers: number of latents in each layer, by the names of the run and of the layer, for runs with several layers.
            Each layer is a line.

    Raises:
        ValueError: there is no run, or the sizes of a run's layers do not add up to D.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import kl_by_rank
        >>> (axes,) = kl_by_rank({"VAE": np.array([0.0, 3.0, 1.5]), "IWAE": np.array([2.0, 2.0, 1.0])}).axes
        >>> axes.get_legend_handles_labels()[1]
        ['VAE, 4.5 nats', 'IWAE, 5.0 nats']
    """
    if not runs:
        raise ValueError("runs must hold the KL of at least one run, got none: add one")
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(4.0, 2.6), layout="constrained")
        axes = figure.subplots()
        for (run, kl), colour, marker in zip(runs.items(), cycle(CONTRASTING_COLOURS), cycle(MARKERS), strict=False):
            heights = np.asarray(kl, dtype=float)
            parts = _parts(len(heights), (layers or {}).get(run))
            for (layer, places), style in zip(parts.items(), cycle(LAYER_STYLES), strict=False):
                falling = np.sort(heights[places])[::-1]
                look: dict[str, Any] = {
                    "marker": marker if len(heights) <= MAX_APART else "",
                    "markersize": 3,
                    "linewidth": 1.1,
                    "linestyle": style,
                }
                label = f"{run}, {layer}, " if layer else f"{run}, "
                axes.plot(
                    np.arange(len(falling)) + 1, falling, color=colour, label=f"{label}{falling.sum():.1f} nats", **look
                )
        axes.set_xlabel("rank of the latent")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("KL (nats per image)")
        axes.legend()
    return figure


def _parts(num_latents: int, layers: Mapping[str, int] | None) -> dict[str, np.ndarray]:
    """Places of the latents of each layer, by name."""
    if not layers:
        return {"": np.arange(num_latents)}
    if sum(layers.values()) != num_latents:
        raise ValueError(f"layers must have {num_latents} latents together, got {dict(layers)}: correct their sizes")
    ends = np.cumsum(list(layers.values()))
    return dict(zip(layers, np.split(np.arange(num_latents), ends[:-1]), strict=True))


def _draw_bars(axes: Axes, heights: np.ndarray, errors: np.ndarray | None, active: np.ndarray) -> None:
    """Bars from the left in the order given, and words for those below zero."""
    apart = len(heights) <= MAX_APART
    axes.tick_params(axis="x", length=0)
    ranks = np.arange(len(heights)) + 1
    # An edge leaves a line where a bar has no height.
    colours = np.where(active, ACTIVE, INACTIVE)
    axes.bar(ranks, heights, color=colours, edgecolor=colours, width=0.8 if apart else 1.0, linewidth=0.8)
    if errors is not None:
        axes.errorbar(ranks, heights, yerr=errors, fmt="none", ecolor="black", elinewidth=0.7 if apart else 0.4)
    below = heights[heights < 0]
    if len(below):
        words = f"{len(below)} below 0, {below.sum():.2g} nats in all".replace("-", "−")
        axes.text(0.98, 0.95, words, transform=axes.transAxes, ha="right", va="top", fontsize=7, color="0.35")


def _draw_variances(axes: Axes, variances: np.ndarray, active: np.ndarray, threshold: float) -> None:
    """Dots on a logarithmic axis, and the threshold."""
    axes.set_yscale("log")
    ranks = np.arange(len(variances)) + 1
    shown = variances > LEAST_VARIANCE
    for members, colour in ((active, ACTIVE), (~active, INACTIVE)):
        axes.plot(ranks[members & shown], variances[members & shown], ".", color=colour, markersize=4)
    look: dict[str, Any] = {"color": INACTIVE, "markersize": 3, "clip_on": False, "linestyle": "", "marker": "v"}
    (edge,) = axes.plot(ranks[~shown], np.zeros((~shown).sum()), transform=axes.get_xaxis_transform(), **look)
    # Without a point it would claim the figure's corner.
    edge.set_in_layout(False)
    axes.axhline(threshold, color="black", linestyle="--", linewidth=0.8, zorder=1)


def _limit_variances(row: np.ndarray, variances: np.ndarray, threshold: float) -> None:
    """The same limits for every panel, with the threshold well inside."""
    shown = np.append(variances[variances > LEAST_VARIANCE], threshold)
    row[0].set_ylim(min(shown.min() / 2, threshold / 10), max(shown.max() * 2, threshold * 10))
    for axes in row:
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())


def _name_latents(axes: Axes, order: np.ndarray) -> None:
    ranks = np.arange(len(order)) + 1
    if len(order) <= MAX_NAMED:
        axes.set_xticks(ranks, [latent_name(int(place)) for place in order])
        axes.set_xlabel("latent")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("rank of the latent")
    axes.set_xlim(0.4, len(order) + 0.6)


def latent_name(place: int) -> str:
    """The name of a latent, counted from 0, such as z₁."""
    return "z" + str(place + 1).translate(SUBSCRIPTS)
