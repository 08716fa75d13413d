"""Figures of the evidence lower bound: as training goes on, and as q moves."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.special import stdtrit

from vae_jax.plotting.style import COLOURS, CONTRASTING_COLOURS, STYLE, StyledFigure

QUANTITIES = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL"}
"""Titles of the panels of `training_curves`."""

LOOKS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (4, 1.5)), "linewidth": 0.9, "alpha": 0.6},
    "validation": {"linestyle": "-", "linewidth": 1.2},
}

PAGE_LETTERS = 110
"""How many letters of a legend a page is wide. A key takes about eight."""


def training_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """ELBO, reconstruction and KL against the epoch, in training (dashed) and validation (solid), run over run.

    Where a value is a list, of one number a seed, the line is its mean and the band the 95% t-interval of the mean, or
    of two seeds their range. The first tenth of the epochs may leave the panel: it would squash the rest.

    Args:
        runs: by name the rows of each run, one an epoch: `epoch`, and `train_` and `validation_` with `elbo`,
            `reconstruction` and `kl` (nats per image). What was not measured is None, or is not there.

    Raises:
        ValueError: no run, or a run without rows.
    """
    if not runs or not all(runs.values()):
        raise ValueError(f"runs must each hold a row an epoch, got {_sizes(runs)}: train for at least one epoch")
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.5), layout="constrained")
        panels = dict(zip(QUANTITIES, figure.subplots(1, len(QUANTITIES)), strict=True))
        drawn = set()
        for quantity, axes in panels.items():
            settled = []
            for rows, colour in zip(runs.values(), cycle(CONTRASTING_COLOURS), strict=False):
                for split in LOOKS:
                    epochs, values = _measured(rows, f"{split}_{quantity}")
                    if len(epochs):
                        bands = _draw_curve(axes, epochs, values, split, colour)
                        settled.append(bands[_num_early(len(epochs)) :])
                        drawn.add((split, values.shape[1]))
            _limit_to(axes, settled)
            axes.set_title(QUANTITIES[quantity])
            axes.set_xlabel("epoch")
            _set_epoch_ticks(axes)
        panels["elbo"].set_ylabel("nats per image")
        handles = _keys(list(runs), drawn)
        longest = max((len(str(handle.get_label())) for handle in handles), default=0)
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, PAGE_LETTERS // (longest + 8)))
    return figure


def bound_gap(
    positions: Float[Array | np.ndarray, " T"],
    elbo: Float[Array | np.ndarray, " T"],
    kl: Float[Array | np.ndarray, " T"],
    log_evidence: float,
    *,
    xlabel: str,
) -> Figure:
    """log p(x) = ELBO + KL(q || p(z|x)) as q moves: the KL lies on the ELBO and fills it up to the constant log p(x).

    The dots are the sums. Where they miss the line of log p(x), one of the two is wrong.

    Args:
        positions: T values of what moves in q, such as its location or scale.
        elbo: nats.
        kl: KL(q || p(z|x)) in nats.
        log_evidence: log p(x) in nats.
        xlabel: what moves.
    """
    places, bound, gap = (np.asarray(values, dtype=float) for values in (positions, elbo, kl))
    total = bound + gap
    sparse = slice(None, None, math.ceil(len(places) / 15))
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(4.0, 2.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(places, bound, color=COLOURS[0], linewidth=1.4, label="ELBO")
        axes.fill_between(places, bound, total, color=COLOURS[3], alpha=0.35, linewidth=0, label="KL(q ‖ p(z | x))")
        axes.axhline(log_evidence, color="black", linewidth=0.9, label="log p(x)")
        look: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 2.5, "clip_on": False, "zorder": 3}
        axes.plot(places[sparse], total[sparse], color=COLOURS[2], label="ELBO + KL", **look)
        axes.margins(x=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("nats")
        figure.legend(loc="outside upper center", ncols=4, columnspacing=1.2, handlelength=1.5)
    return figure


def _sizes(runs: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {name: len(rows) for name, rows in runs.items()}


def _measured(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [E] at which a quantity was measured, and its values [E, seeds]."""
    values = [(row["epoch"], np.atleast_1d(np.array(row.get(name), dtype=float))) for row in rows]
    present = [(epoch, value) for epoch, value in values if not np.isnan(value).all()]
    if not present:
        return np.empty(0), np.empty((0, 1))
    epochs, measured = zip(*present, strict=True)
    return np.array(epochs), np.stack(measured)


def _draw_curve(axes: Axes, epochs: np.ndarray, values: np.ndarray, split: str, colour: str) -> np.ndarray:
    """Draws mean and band, and returns the band's ends [E, 2]."""
    single = len(epochs) == 1
    face = "white" if split == "train" else colour
    look: dict[str, Any] = {"marker": "o" if single else "", "markersize": 4, "markerfacecolor": face, "zorder": 3}
    axes.plot(epochs, values.mean(axis=1), color=colour, **look, **LOOKS[split])
    bands = _bands(values)
    if values.shape[1] > 1:
        # Over a single epoch the band has no width, and only its edge shows.
        axes.fill_between(epochs, *bands.T, color=colour, linewidth=3 if single else 0, alpha=0.2)
    return bands


def _bands(values: np.ndarray) -> np.ndarray:
    """95% t-interval of the mean over seeds, the second axis, or the range of one or two."""
    num_seeds = values.shape[1]
    if num_seeds <= 2:
        return np.stack([values.min(axis=1), values.max(axis=1)], axis=1)
    half = stdtrit(num_seeds - 1, 0.975) * values.std(axis=1, ddof=1) / math.sqrt(num_seeds)
    return values.mean(axis=1)[:, None] + half[:, None] * np.array([-1, 1])


def _num_early(num_epochs: int) -> int:
    """How many epochs may be left out of the panel: none of a few."""
    return 0 if num_epochs < 5 else math.ceil(num_epochs / 10)


def _set_epoch_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xticks([first], [f"{first:.0f}"])


def _limit_to(axes: Axes, settled: Sequence[np.ndarray]) -> None:
    """Limits the panel to the settled values, where all together would leave them less than half of it."""
    values = np.concatenate([part.ravel() for part in settled]) if settled else np.empty(0)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return
    low, high = values.min(), values.max()
    bottom, top = axes.get_ylim()
    margin = 0.05 * (high - low)
    if 0 < high - low < 0.5 * (top - bottom):
        axes.set_ylim(low - margin, high + margin)


def _keys(names: Sequence[str], drawn: set[tuple[str, int]]) -> list[Line2D | Patch]:
    """Keys of the runs, if several, of the lines and of the bands."""
    several = len(names) > 1
    colour = "0.35" if several else CONTRASTING_COLOURS[0]
    runs = zip(names if several else [], cycle(CONTRASTING_COLOURS), strict=False)
    keys: list[Line2D | Patch] = [Line2D([], [], color=look, linewidth=1.2, label=name) for name, look in runs]
    titles = {"train": "training", "validation": "validation"}
    keys += [
        Line2D([], [], color=colour, label=titles[split], **LOOKS[split])
        for split in LOOKS
        if any(split == other for other, _ in drawn)
    ]
    for num_seeds in sorted({number for _, number in drawn if number > 1}):
        label = "range of 2 seeds" if num_seeds == 2 else f"95% interval, {num_seeds} seeds"
        keys.append(Patch(facecolor=colour, alpha=0.2, label=label))
    return keys
