"""Histograms of the probabilities that posteriors gave to values below the truth."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import binom

from vae_jax.inference.diagnostics import (
    Calibration,
    ParameterCalibration,
)
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

FULL_WIDTH = 6.0
"""Width of four columns, in inches."""

BAND = 0.99
"""Probability that one bar of a calibrated histogram lies in its band."""


MOST_COLUMNS = 4


def calibration_histograms(calibration: Calibration, *, num_bins: int = 20, parameters: Sequence[str] = ()) -> Figure:
    """Plots histograms of the probabilities that posteriors gave to values below the truth, one for each parameter.

    The probabilities of exact posteriors are uniform. The grey band holds a calibrated bar with a probability of 99%.

    Args:
        calibration: result of `vae_jax.inference.calibration`.
        num_bins: number of bins of each histogram, at most the number of replicates.
        parameters: names of the parameters to draw, by default all.

    Raises:
        ValueError: a name is unknown, there are too many bins, or a probability is not finite.

    Example:
        >>> import numpy as np
        >>> from vae_jax.inference import Calibration, ParameterCalibration
        >>> from vae_jax.plotting import calibration_histograms
        >>> row = ParameterCalibration("loc", 0.0, 0.1, 1.0, 0.1, 1.0, 1.0, "no fault found")
        >>> result = Calibration((row,), np.linspace(0.01, 0.99, 40)[:, None], level=0.05)
        >>> [axes.get_title().splitlines() for axes in calibration_histograms(result, num_bins=10).axes]
        [['loc', 'no fault found']]
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
        size = (max(3.0, FULL_WIDTH * num_columns / MOST_COLUMNS), 1.75 * num_rows + 0.35)
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
