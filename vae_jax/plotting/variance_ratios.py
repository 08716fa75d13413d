"""The variances of two estimators, one over the other."""

import math

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure
from vae_jax.statistics import CONFIDENCE
from vae_jax.studies.estimator_comparison import Comparison


def variance_ratios(comparison: Comparison) -> Figure:
    """Plots the variance of the first estimator over the second's, with intervals, by parameter and number of samples.

    Crosses mark the exact ratios that are known. Left of one the first estimator varies less.

    Args:
        comparison: result of `vae_jax.compare`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> from vae_jax.plotting import variance_ratios
        >>> from vae_jax.problems import SquareCost
        >>> params, sizes = {"loc": jnp.ones(()), "scale": jnp.ones(())}, {"num_replicates": 20, "num_samples": [1]}
        >>> names = {"first": "pathwise", "second": "score_function"}
        >>> comparison = vj.compare(SquareCost(), params, jax.random.key(0), **sizes, **names)
        >>> (axes,) = variance_ratios(comparison).axes
        >>> axes.get_xlabel().splitlines()
        ['variance of pathwise', 'over that of score_function']
    """
    rows = [row for row in reversed(comparison.rows) if 0 < row.variance_ratio < math.inf]
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(5.0, 1.2 + 0.22 * max(len(rows), 2)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(rows))
        ratios = np.array([row.variance_ratio for row in rows])
        ends = np.array([[row.variance_ratio_lower, row.variance_ratio_upper] for row in rows]).reshape(-1, 2)
        axes.errorbar(
            ratios, places, xerr=np.abs(ends.T - ratios), fmt="o", markersize=4, capsize=2, elinewidth=0.8,
            color=COLOURS[0], label=f"measured, {CONFIDENCE:.0%} interval",
        )  # fmt: skip
        exact = [(row.exact_variance_ratio, place) for row, place in zip(rows, places, strict=True)]
        known = [(ratio, place) for ratio, place in exact if ratio]
        if known:
            axes.plot(*zip(*known, strict=True), "x", markersize=6, color="black", label="exact")
        axes.axvline(1, color="grey", linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.set_yticks(places, [f"{row.parameter}, {row.num_samples:,} samples" for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        first = comparison.rows[0]
        axes.set_xlabel(f"variance of {first.first}\nover that of {first.second}")
        figure.legend(loc="outside upper right", ncols=2)
    return figure
