"""Figures of estimates and of their standard deviation by estimator, at one number of samples."""

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_jax.plotting.estimates_by_samples import draw_boxes, title_of
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure
from vae_jax.studies.variance_rows import VarianceRow, is_rounding
from vae_jax.studies.variance_study import VarianceStudy


def std_by_estimator(study: VarianceStudy) -> Figure:
    """Plots the standard deviation of each estimator at the largest number of samples, measured and exact.

    Bars are two standard errors. An arrow stands for an estimator without variance.

    Args:
        study: result of `vae_jax.study_variance`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> from vae_jax.plotting import std_by_estimator
        >>> from vae_jax.problems import SquareCost
        >>> params, names = {"loc": jnp.ones(()), "scale": jnp.ones(())}, ["pathwise", "score_function"]
        >>> study = vj.study_variance(SquareCost(), params, jax.random.key(0), 20, estimators=names, num_samples=[1])
        >>> figure = std_by_estimator(study)
        >>> [axes.get_title() for axes in figure.axes], [label.get_text() for label in figure.axes[0].get_yticklabels()]
        (['cost', '∂ cost / ∂ loc', '∂ cost / ∂ scale'], ['pathwise', 'score_function'])
    """

    def draw(axes: Axes, rows: list[VarianceRow], places: np.ndarray) -> None:
        stds = np.array([row.std for row in rows])
        shown = np.array([not is_rounding(row) for row in rows])
        axes.errorbar(
            stds[shown], places[shown], xerr=2 * np.array([row.std_se for row in rows])[shown], fmt="o", markersize=3.5,
            elinewidth=0.8, capsize=2, color=COLOURS[0], label="measured", zorder=3,
        )  # fmt: skip
        exact = [(row.exact_std, place) for row, place, is_shown in zip(rows, places, shown, strict=True) if is_shown]
        known = [(std, place) for std, place in exact if std]
        if known:
            axes.plot(*zip(*known, strict=True), "|", markersize=9, color="black", label="exact")
        axes.set_xscale("log")
        edge = axes.get_xlim()[0]
        if not shown.all():
            axes.plot(
                np.full((~shown).sum(), edge), places[~shown], "<", markersize=5, color=COLOURS[2], label="no variance"
            )
            axes.set_xlim(left=edge)
        axes.set_xlabel("std of one estimate")

    return _side_by_side(study, draw)


def boxes_by_estimator(study: VarianceStudy) -> Figure:
    """Draws box plots of each estimator's replicates about the exact value, at the largest number of samples.

    Boxes hold the middle half and whiskers the middle 98%.

    Args:
        study: result of `vae_jax.study_variance`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import vae_jax as vj
        >>> from vae_jax.plotting import boxes_by_estimator
        >>> from vae_jax.problems import SquareCost
        >>> params, names = {"loc": jnp.ones(()), "scale": jnp.ones(())}, ["pathwise", "score_function"]
        >>> study = vj.study_variance(SquareCost(), params, jax.random.key(0), 20, estimators=names, num_samples=[1])
        >>> [axes.get_title() for axes in boxes_by_estimator(study).axes]
        ['cost', '∂ cost / ∂ loc', '∂ cost / ∂ scale']
    """

    def draw(axes: Axes, rows: list[VarianceRow], places: np.ndarray) -> None:
        centre = next((row.exact_mean for row in rows if row.exact_mean is not None), rows[0].mean)
        errors = [study.replicates_of(row.estimator, row.parameter, row.num_samples) - centre for row in rows]
        finite = [error[np.isfinite(error)] for error in errors]
        draw_boxes(axes, finite, places, COLOURS[0], width=0.6, orientation="horizontal")
        axes.axvline(0, color="black", linewidth=0.8, zorder=3, label="exact")
        axes.set_xlabel("estimate − exact")

    return _side_by_side(study, draw)


def _side_by_side(study: VarianceStudy, draw: Callable[[Axes, list[VarianceRow], np.ndarray], None]) -> Figure:
    """A panel for each parameter, with the estimators from top to bottom."""
    size = study.num_samples[-1]
    places = np.arange(len(study.estimators))[::-1]
    with mpl.rc_context(STYLE):
        figure = StyledFigure(
            figsize=(2.2 + 1.7 * len(study.parameters), 1.2 + 0.19 * len(study.estimators)), layout="constrained"
        )
        panels = np.ravel(figure.subplots(1, len(study.parameters), sharey=True))
        for axes, parameter in zip(panels, study.parameters, strict=True):
            draw(axes, [study.row(name, parameter, size) for name in study.estimators], places)
            axes.set_title(title_of(study, parameter))
            axes.grid(axis="y", linewidth=0.3, color="#dddddd")
            axes.set_axisbelow(True)
        panels[0].set_yticks(places, study.estimators)
        by_label = {
            label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            by_label.values(), by_label.keys(), loc="outside upper right", ncols=len(by_label),
            title=f"{size:,} samples per estimate", alignment="right",
        )  # fmt: skip
    return figure
