"""Figures of how far an approximate posterior can be believed."""

from collections.abc import Sequence

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter, ScalarFormatter
from scipy.stats import binom

from vae_jax.inference.diagnostics import (
    Calibration,
    MomentComparison,
    MomentDifference,
    ParameterCalibration,
    fit_tail,
    reliability_threshold,
    tail_length,
)
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

FIGURE_WIDTH = 6.0
BAND = 0.99
"""Probability that one bar of a calibrated histogram lies in its band."""

SHOWN_ERRORS = 2.0
"""Standard errors that an error bar is long on each side."""

MOST_COLUMNS = 4

MARKED_DECADE = 10.0
"""Below such a ratio of the ends, an axis may hold no power of ten to mark."""


def importance_tail(log_weights: Float[ArrayLike, " S"]) -> Figure:
    """The largest importance weights and the generalised Pareto distribution fitted to them.

    The axes are logarithmic: the tail of a Pareto distribution is a line of slope -1 / k.

    Args:
        log_weights: log p(x, z) - log q(z) (nats), up to a constant, at S samples of q.

    Raises:
        ValueError: the tail cannot be fitted, as it is too short, constant, or not finite.
    """
    logs = np.asarray(log_weights, float)
    length = tail_length(logs.size)
    fitted = fit_tail(jnp.asarray(np.ravel(logs)), logs.size)
    k, log_scale, log_cutoff = (float(field) for field in fitted)
    if not np.isfinite(k):
        raise ValueError(f"log_weights must have a tail with a finite shape k, got {k} from {logs.size}: draw more")
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(3.4, 2.9), layout="constrained")
        axes = figure.subplots()
        # In units of the mean weight, which a self-normalised estimate gives every sample.
        log_mean = np.logaddexp.reduce(logs) - np.log(logs.size)
        _draw_fit(axes, (k, log_scale - log_mean, log_cutoff - log_mean), length / logs.size, 0.5 / length)
        largest = np.exp(np.sort(logs)[::-1][:length] - log_mean)
        share = (np.arange(length) + 0.5) / logs.size
        axes.plot(largest, share, "o", color=COLOURS[0], markersize=3, alpha=0.6, markeredgewidth=0, label="weights")
        _label_weights(axes, largest[0] / np.exp(log_cutoff - log_mean))
        threshold = reliability_threshold(logs.size)
        verdict = "reliable" if k < threshold else "not reliable"
        axes.set_title(f"k = {k:.2f}: {verdict} (below {threshold:.2f} is)")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2, handlelength=1.6)
    return figure


def _draw_fit(axes: Axes, tail: tuple[float, float, float], share_of_tail: float, smallest_share: float) -> None:
    """The share of weights above each, from the cutoff on."""
    k, log_scale, log_cutoff = tail
    above = np.geomspace(smallest_share, 1, 200, endpoint=False)
    log_excess = log_scale + np.log(-np.log(above) if k == 0 else np.expm1(-k * np.log(above)) / k)
    weights = np.exp(np.logaddexp(log_cutoff, log_excess))
    axes.plot(weights, above * share_of_tail, color=COLOURS[2], linewidth=1.2, label="generalised Pareto fit")
    axes.axvline(np.exp(log_cutoff), color="0.6", linewidth=0.8, linestyle=(0, (4, 2)), label="cutoff")


def _label_weights(axes: Axes, span: float) -> None:
    """Axes for weights of which the largest is `span` times the cutoff."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    if span < MARKED_DECADE:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weight w / mean weight")
    axes.set_ylabel("share of weights above w")


def calibration_histograms(calibration: Calibration, *, num_bins: int = 20, parameters: Sequence[str] = ()) -> Figure:
    """The probabilities that posteriors gave to values below the truth, for each parameter.

    Those of exact posteriors are uniform. The grey band holds a calibrated bar with a probability of 99%.

    Args:
        calibration: what to draw.
        num_bins: of each histogram, with a mean of at least one replicate a bin.
        parameters: names of those to draw, by default all.

    Raises:
        ValueError: an unknown name, too many bins, or probabilities that are not finite.
    """
    columns = {row.name: place for place, row in enumerate(calibration.parameters)}
    unknown = [name for name in parameters if name not in columns]
    if unknown:
        raise ValueError(f"parameters must be among {', '.join(list(columns)[:4])}, got {unknown[0]}: correct the name")
    num_replicates = len(calibration.probabilities)
    if not 1 <= num_bins <= num_replicates:
        raise ValueError(f"num_bins must be from 1 to the {num_replicates} replicates, got {num_bins}: change it")
    chosen = list(parameters) or list(columns)
    if not np.isfinite(calibration.probabilities[:, [columns[name] for name in chosen]]).all():
        raise ValueError("probabilities must be finite, got NaN: leave out the parameters whose inference failed")
    num_columns = min(len(chosen), MOST_COLUMNS)
    num_rows = -(-len(chosen) // num_columns)
    with mpl.rc_context(STYLE):
        size = (max(3.0, FIGURE_WIDTH * num_columns / MOST_COLUMNS), 1.75 * num_rows + 0.35)
        figure = StyledFigure(figsize=size, layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(chosen) :]:
            axes.remove()
        for axes, name in zip(grid.flat, chosen, strict=False):
            place = columns[name]
            _draw_histogram(axes, calibration.parameters[place], calibration.probabilities[:, place], num_bins)
        figure.supxlabel("probability below the truth", fontsize=8)
        figure.supylabel("replicates", fontsize=8)
    return figure


def _draw_histogram(
    axes: Axes, parameter: ParameterCalibration, probabilities: Float[np.ndarray, " R"], num_bins: int
) -> None:
    counts, edges = np.histogram(probabilities, num_bins, range=(0, 1))
    low, high = binom.interval(BAND, len(probabilities), 1 / num_bins)
    axes.axhspan(low, high, color="0.88", linewidth=0)
    axes.axhline(len(probabilities) / num_bins, color="0.45", linewidth=0.8)
    colour = COLOURS[0] if parameter.verdict == "no fault found" else COLOURS[2]
    axes.stairs(counts, edges, fill=True, color=colour, alpha=0.55)
    axes.stairs(counts, edges, color=colour, linewidth=0.9)
    axes.set_title(f"{parameter.name}\n{parameter.verdict}")
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def moment_differences(comparison: MomentComparison, *, most: int = 30) -> Figure:
    """How far each parameter's mean and standard deviation are from the reference's, with two standard errors.

    Correlations, if there are any, are drawn against the reference's own.

    Args:
        comparison: what to draw.
        most: how many parameters, those with the largest differences.

    Raises:
        ValueError: `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}: raise it")
    rows = comparison.parameters
    if len(rows) > most:
        kept = sorted(rows, key=lambda row: -max(abs(row.mean), abs(row.std)))[:most]
        rows = tuple(row for row in rows if row in kept)
    num_panels = 3 if comparison.correlations else 2
    with mpl.rc_context(STYLE):
        size = (FIGURE_WIDTH * (num_panels + 0.4) / 3.4, max(2.3, 0.7 + 0.16 * len(rows)))
        figure = StyledFigure(figsize=size, layout="constrained")
        panels = figure.subplots(1, num_panels)
        _draw_differences(list(panels[:2]), rows)
        if comparison.correlations:
            _draw_correlations(panels[2], comparison)
    return figure


def _draw_differences(panels: Sequence[Axes], rows: Sequence[MomentDifference]) -> None:
    places = np.arange(len(rows))
    columns = [
        ("mean", [row.mean for row in rows], [row.mean_se for row in rows], "difference / reference's std"),
        ("standard deviation", [row.std for row in rows], [row.std_se for row in rows], "relative difference"),
    ]
    for axes, (title, values, errors, label) in zip(panels, columns, strict=True):
        axes.axvline(0, color="0.45", linewidth=0.8)
        bars = SHOWN_ERRORS * np.array(errors)
        axes.errorbar(values, places, xerr=bars, fmt="o", markersize=3.5, color=COLOURS[0], elinewidth=1, capsize=2)
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(places, [])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        reach = max(np.abs(np.array(values)) + bars) * 1.15 or 1
        axes.set_xlim(-reach, reach)
    panels[0].set_yticks(places, [row.name for row in rows])
    panels[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def _draw_correlations(axes: Axes, comparison: MomentComparison) -> None:
    pairs = comparison.correlations
    axes.plot([-1, 1], [-1, 1], color="0.45", linewidth=0.8)
    axes.errorbar(
        [pair.reference for pair in pairs],
        [pair.approximation for pair in pairs],
        yerr=[SHOWN_ERRORS * pair.difference_se for pair in pairs],
        fmt="o", markersize=3.5, color=COLOURS[0], elinewidth=1, capsize=2,
    )  # fmt: skip
    axes.set_title("correlation")
    axes.set_xlabel("reference")
    axes.set_ylabel("approximation")
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
