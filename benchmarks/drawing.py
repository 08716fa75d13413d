"""What the figures of benchmarks share."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes


def draw_measured(
    axes: Axes, places: Sequence[float], values: Sequence[float], errors: Sequence[float], **look: Any
) -> None:
    """Points with bars of two standard errors."""
    axes.errorbar(places, values, yerr=[2 * error for error in errors], elinewidth=0.8, **look)
