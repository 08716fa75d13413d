"""Figures of the latents of encoded images."""

import math
from typing import Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float, Integer
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vae_jax.plotting.kl_by_latent import latent_name
from vae_jax.plotting.style import CLASS_COLOURS, STYLE, StyledFigure


def latent_scatter(
    means: Float[Array | np.ndarray, "N D"],
    labels: Integer[Array | np.ndarray, " N"] | None = None,
    *,
    projection: Literal["first_two", "pca"] | None = None,
) -> Figure:
    """Plots posterior means of images in two dimensions, coloured by class, with both axes on one scale.

    Args:
        means: means of q(z|x) for N images [N, D], both at least 2.
        labels: classes of the images [N].
        projection: `first_two` shows z_1 and z_2. `pca` shows the first two principal components, with the shares of
            the variance that they hold. The default is `first_two` for 2 latents and `pca` for more.

    Raises:
        ValueError: there are fewer than 2 latents or images, a mean is not finite, or the projection is unknown.

    Example:
        The first of three latents has 8 / 9 of the variance, and the second the rest:

        >>> import numpy as np
        >>> from vae_jax.plotting import latent_scatter
        >>> means = np.array([[2.0, 0.5, 0.0], [-2.0, 0.5, 0.0], [2.0, -0.5, 0.0], [-2.0, -0.5, 0.0]]) * [2**0.5, 2, 1]
        >>> (axes,) = latent_scatter(means, labels=np.array([0, 1, 0, 1])).axes
        >>> axes.get_xlabel()
        'principal component 1 (89% of the variance)'
    """
    points = _checked_means(np.asarray(means, dtype=float))
    chosen = projection or ("first_two" if points.shape[1] == 2 else "pca")
    if chosen not in ("first_two", "pca"):
        raise ValueError(f"projection must be first_two or pca, got {chosen}: use one of these")
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


def _checked_means(points: np.ndarray) -> np.ndarray:
    if min(points.shape) < 2:
        raise ValueError(f"means must be [N, D] with both at least 2, got shape {points.shape}: encode more images")
    num_nonfinite = int((~np.isfinite(points)).any(axis=1).sum())
    if num_nonfinite:
        raise ValueError(f"means must be finite, got {num_nonfinite:,} of {len(points):,} that are not: drop them")
    return points


def _first_two(points: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    return points[:, :2], (f"mean of {latent_name(0)}", f"mean of {latent_name(1)}")


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
