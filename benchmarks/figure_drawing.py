"""Figures of benchmarks: points with error bars, saved as PNG files of few colours."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image


def draw_measured(
    axes: Axes, places: Sequence[float], values: Sequence[float], errors: Sequence[float], **look: Any
) -> None:
    """Draws points with bars of two standard errors."""
    axes.errorbar(places, values, yerr=[2 * error for error in errors], elinewidth=0.8, **look)


def save_png(figure: Figure, folder: Path | None, name: str) -> None:
    """Writes a figure of flat colours with a palette of 128, which takes a third of the bytes.

    Makes the folder where it is missing, and writes nothing without one.
    """
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=200)
    Image.open(drawn).convert("RGB").quantize(128).save(folder / name, dpi=(200, 200), optimize=True)
    print(f"saved {name}")
