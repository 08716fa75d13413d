"""Figures of the latents of encoded images."""

import math
from collections.abc import Mapping
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Bool, Float, Integer
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vae_jax.plotting.style import CLASS_COLOURS, COLOURS, CONTRASTING_COLOURS, MARKERS, STYLE, StyledFigure

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

MAX_APART = 60
"""Most bars with gaps between them: those between more would come out some wide and some narrow."""


def latent_scatter(
    means: Float[Array | np.ndarray, "N D"],
    labels: Integer[Array | np.ndarray, " N"] | None = None,
    *,
    projection: Literal["first_two", "pca"] | None = None,
) -> Figure:
    """Posterior means of images in two dimensions, coloured by class, both axes on one scale.

    Args:
        means: of q(z|x) for N images, in D latents, at least 2.
        labels: classes of the images.
        projection: `first_two` shows z_1 and z_2, and `pca` the two principal components with the shares of the
            variance that they hold. By default the former for 2 latents and the latter for more.

    Raises:
        ValueError: fewer than 2 latents or images, means that are not finite, or an unknown projection.
    """
    points = _checked_means(np.asarray(means, dtype=float))
    chosen = projection or ("first_two" if points.shape[1] == 2 else "pca")
    if chosen not in ("first_two", "pca"):
        raise ValueError(f"projection must be first_two or pca, got {chosen}: choose of these")
    points, (xlabel, ylabel) = _first_two(points) if chosen == "first_two" else _principal_components(points)
    classes, ranks = (None, np.zeros(len(points), int)) if labels is None else np.unique(labels, return_inverse=True)
    palette = np.array(_class_colours(1 if classes is None else len(classes)))
    # In the order of the data, a sorted dataset would have its last class cover the others.
    order = np.random.default_rng(0).permutation(len(points))
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(4.2, 3.7), layout="constrained")
        axes = figure.subplots()
        axes.scatter(
            *points[order].T,
            c=palette[ranks[order]],
            s=float(np.clip(30_000 / len(points), 3, 12)),
            alpha=0.8,
            linewidths=0,
            rasterized=True,
        )
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if classes is not None:
            keys = [
                Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=str(name))
                for name, colour in zip(classes, palette, strict=True)
            ]
            figure.legend(handles=keys, loc="outside right center", ncols=math.ceil(len(keys) / 20), handlelength=1)
    return figure


def kl_by_latent(
    kl: Float[Array | np.ndarray, " D"],
    *,
    kl_se: Float[Array | np.ndarray, " D"] | None = None,
    active: Bool[Array | np.ndarray, " D"],
) -> Figure:
    """The KL of every latent from the largest down, active latents against inactive ones.

    Bars of error are two standard errors.

    Args:
        kl: KL(q(z_d|x) || p(z_d)) of each latent, averaged over images (nats).
        kl_se: standard errors of the averages.
        active: which latents are.
    """
    heights, is_active = np.asarray(kl, dtype=float), np.asarray(active)
    order = np.argsort(-heights, kind="stable")
    ranks = np.arange(len(heights)) + 1
    errors = None if kl_se is None else 2 * np.asarray(kl_se, dtype=float)[order]
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(min(5.5, 3.0 + 0.08 * len(heights)), 2.4), layout="constrained")
        axes = figure.subplots()
        # An edge leaves a line where a bar has no height.
        look: dict[str, Any] = {"width": 0.8 if len(heights) <= MAX_APART else 1.0, "linewidth": 0.8}
        keys = []
        for name, members, colour in (("active", is_active, COLOURS[0]), ("inactive", ~is_active, COLOURS[3])):
            shown = members[order]
            axes.bar(ranks[shown], heights[order][shown], color=colour, edgecolor=colour, **look)
            keys.append(Patch(color=colour, label=f"{shown.sum()} {name}, {heights[members].sum():.1f} nats"))
        if errors is not None:
            width = 0.7 if len(heights) <= MAX_APART else 0.4
            axes.errorbar(ranks, heights[order], yerr=errors, fmt="none", ecolor="black", elinewidth=width)
        if len(heights) <= 20:
            axes.set_xticks(ranks, [_latent(int(place)) for place in order])
            axes.tick_params(axis="x", length=0)
            axes.set_xlabel("latent")
        else:
            axes.set_xlabel("rank of the latent")
        axes.set_xlim(0.4, len(heights) + 0.6)
        axes.set_ylabel("KL (nats per image)")
        figure.legend(handles=keys, loc="outside upper center", ncols=2)
    return figure


def kl_by_rank(runs: Mapping[str, Float[Array | np.ndarray, " _"]]) -> Figure:
    """The KL of every latent from the largest down, run over run, and each run's sum.

    Args:
        runs: by name the KL(q(z_d|x) || p(z_d)) of each latent, averaged over images (nats).

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("runs must hold the KL of at least one run, got none: add one")
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(4.0, 2.6), layout="constrained")
        axes = figure.subplots()
        for (name, kl), colour, marker in zip(runs.items(), cycle(CONTRASTING_COLOURS), cycle(MARKERS), strict=False):
            heights = np.sort(np.asarray(kl, dtype=float))[::-1]
            look: dict[str, Any] = {
                "marker": marker if len(heights) <= MAX_APART else "",
                "markersize": 3,
                "linewidth": 0.9,
            }
            label = f"{name}, {heights.sum():.1f} nats"
            axes.plot(np.arange(len(heights)) + 1, heights, color=colour, label=label, **look)
        axes.set_xlabel("rank of the latent")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        # The estimate for a latent of a hierarchical model may be negative.
        if all(np.min(kl) >= 0 for kl in runs.values()):
            axes.set_ylim(bottom=0)
        axes.set_ylabel("KL (nats per image)")
        axes.legend()
    return figure


def _checked_means(points: np.ndarray) -> np.ndarray:
    if min(points.shape) < 2:
        raise ValueError(f"means must be [N, D] with both at least 2, got shape {points.shape}: encode more images")
    num_nonfinite = int((~np.isfinite(points)).any(axis=1).sum())
    if num_nonfinite:
        raise ValueError(f"means must be finite, got {num_nonfinite:,} of {len(points):,} that are not: drop them")
    return points


def _first_two(points: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    return points[:, :2], (f"mean of {_latent(0)}", f"mean of {_latent(1)}")


def _principal_components(points: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Scores on the first two components, each turned so that its largest loading is positive."""
    centred = points - points.mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    components = components[:2]
    signs = np.sign(np.take_along_axis(components, np.abs(components).argmax(axis=1, keepdims=True), axis=1))
    # Means that do not vary at all, as after a collapse of the posterior, have no variance to share.
    shares = singular**2 / max(float((singular**2).sum()), np.finfo(float).tiny)
    scores = centred @ (signs * components).T
    first, second = (f"principal component {i + 1} ({shares[i]:.0%} of the variance)" for i in (0, 1))
    return scores, (first, second)


def _class_colours(number: int) -> list[str]:
    if number <= len(CLASS_COLOURS):
        return list(CLASS_COLOURS[:number])
    return [to_hex(colour) for colour in mpl.colormaps["turbo"](np.linspace(0, 1, number))]


def _latent(place: int) -> str:
    return "z" + str(place + 1).translate(SUBSCRIPTS)
