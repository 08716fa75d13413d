"""Signal over noise of a gradient in each layer of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure


def signal_to_noise_by_layer(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plots signal over noise of a gradient in each layer, with a marker for each estimator and number of samples.

    Bars are two standard errors. Where only an upper limit of a ratio is known, an arrow starts at the limit.

    Args:
        rows: one row for each ratio, with layer, estimator, num_samples, signal_to_noise and signal_to_noise_se, which
            is None where signal_to_noise is an upper limit.

    Example:
        >>> from vae_jax.plotting import signal_to_noise_by_layer
        >>> row = {"estimator": "pathwise", "num_samples": 1, "signal_to_noise": 0.5, "signal_to_noise_se": 0.1}
        >>> rows = [{**row, "layer": name} for name in ("encoder.mean", "decoder.head")]
        >>> (axes,) = signal_to_noise_by_layer(rows).axes
        >>> [label.get_text() for label in axes.get_yticklabels()], axes.get_legend_handles_labels()[1]
        (['encoder.mean', 'decoder.head'], ['pathwise, 1 sample'])
    """
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    series = list(dict.fromkeys((row["estimator"], row["num_samples"]) for row in rows))
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(5.0, 1.0 + 0.22 * len(layers)), layout="constrained")
        axes = figure.subplots()
        longest = max(row["signal_to_noise"] for row in rows)
        for place, (estimator, size) in enumerate(series):
            members = {r["layer"]: r for r in rows if (r["estimator"], r["num_samples"]) == (estimator, size)}
            offset = 0.5 * ((place + 0.5) / len(series) - 0.5)
            axes.errorbar(
                [members[layer]["signal_to_noise"] for layer in layers],
                np.arange(len(layers)) + offset,
                xerr=[_bar(members[layer], longest / 20) for layer in layers],
                xuplims=[members[layer]["signal_to_noise_se"] is None for layer in layers],
                fmt=MARKERS[place % len(MARKERS)],
                color=COLOURS[place % len(COLOURS)],
                markersize=4,
                elinewidth=0.8,
                label=f"{estimator}, {size:,} sample{'s' * (size > 1)}",
            )
        axes.set_yticks(range(len(layers)), [layer.replace(".layers", "") for layer in layers])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_xlabel("signal / noise of one gradient")
        axes.grid(axis="y", linewidth=0.3)
        figure.legend(loc="outside upper center", ncols=min(2, len(series)))
    return figure


def _bar(row: Mapping[str, Any], arrow: float) -> float:
    return arrow if row["signal_to_noise_se"] is None else 2 * row["signal_to_noise_se"]
