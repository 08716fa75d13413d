"""The figure of a training run: the evidence lower bound and its terms over training."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vae_jax.plotting.style import CONTRASTING_COLOURS, STYLE, StyledFigure
from vae_jax.statistics import interval_half_width

QUANTITIES = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL"}
"""Titles of the panels of `training_curves`."""

LOOKS: dict[str, dict[str, Any]] = {
    "train": {"linestyle": (0, (4, 1.5)), "linewidth": 0.9, "alpha": 0.7},
    "validation": {"linestyle": "-", "linewidth": 1.2},
}

TITLES = {"train": "training", "validation": "validation"}

PAGE_LETTERS = 110
"""Letters of a legend across a page. A key takes about eight."""

MAX_BARS = 6
"""Most intervals of a curve that are drawn as bars."""


class Curve(NamedTuple):
    """A quantity of a run in a split, as it is drawn."""

    epochs: np.ndarray
    """[E]"""
    values: np.ndarray
    """Values by epoch and seed [E, seeds]."""
    split: str
    colour: str

    @property
    def is_dot(self) -> bool:
        """Whether there is no line to be drawn."""
        return len(self.epochs) == 1

    @property
    def has_intervals(self) -> bool:
        """Whether there are several seeds."""
        return self.values.shape[1] > 1

    @property
    def intervals(self) -> np.ndarray:
        """95% t-interval of the mean over seeds, or the range of one or two [E, 2]."""
        num_seeds = self.values.shape[1]
        if num_seeds <= 2:
            return np.stack([self.values.min(axis=1), self.values.max(axis=1)], axis=1)
        half = interval_half_width(self.values, 1)
        return self.values.mean(axis=1)[:, None] + half[:, None] * np.array([-1, 1])

    @property
    def settled(self) -> np.ndarray:
        """The intervals after the first tenth of the epochs, which may leave the panel; all of a few."""
        num_epochs = len(self.epochs)
        return self.intervals[0 if num_epochs < 10 else math.ceil(num_epochs / 10) :]


def training_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Plots ELBO, reconstruction and KL of each run against the epoch, in training (dashed) and validation (solid).

    A value may be a list with one number for each seed. The line is then its mean, with the 95% t-interval of the mean
    or, for two seeds, their range. The interval is a band for one run. For several runs it is drawn as bars at some
    epochs of validation, or of training where a run has no validation. The first tenth of the epochs may leave the
    panel, as it would squash the rest. A note under the panel says so.

    Args:
        runs: rows of each run, by the names of the runs. A row is an epoch, with `epoch`, `train_elbo`,
            `train_reconstruction`, `train_kl`, `validation_elbo` and so on (nats per image). A value that was not
            measured is None or left out.

    Raises:
        ValueError: there is no run, or a run has no rows.

    Example:
        >>> from vae_jax.plotting import training_curves
        >>> first = {"epoch": 1, "train_elbo": -100.0, "train_reconstruction": -90.0, "train_kl": 10.0}
        >>> second = {"epoch": 2, "train_elbo": -80.0, "train_reconstruction": -68.0, "train_kl": 12.0}
        >>> [axes.get_title() for axes in training_curves({"VAE": [first, second]}).axes]
        ['ELBO', 'reconstruction', 'KL']
    """
    if not runs or not all(runs.values()):
        raise ValueError(f"runs must each hold a row an epoch, got {_sizes(runs)}: train for at least one epoch")
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.7), layout="constrained")
        panels = dict(zip(QUANTITIES, figure.subplots(1, len(QUANTITIES)), strict=True))
        drawn = []
        for quantity, axes in panels.items():
            curves = _curves(runs, quantity)
            if len(runs) > 1:
                curves = _with_fewer_intervals(curves)
            drawn += curves
            for curve in curves:
                _draw_mean(axes, curve)
            draw_intervals = _draw_bars if len(runs) > 1 or any(curve.is_dot for curve in curves) else _draw_bands
            draw_intervals(axes, [curve for curve in curves if curve.has_intervals])
            _limit_to(axes, [curve.settled for curve in curves])
            axes.set_title(QUANTITIES[quantity])
            axes.set_xlabel("\n".join(["epoch", *_outside(axes, curves)]))
            _set_epoch_ticks(axes, curves)
        panels["elbo"].set_ylabel("nats per image")
        if len(runs) > 1:
            _add_legend(figure, _run_keys(list(runs)), loc="outside upper center")
        _add_legend(figure, _look_keys(drawn, several=len(runs) > 1), loc="outside lower center")
    return figure


def _sizes(runs: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    return {name: len(rows) for name, rows in runs.items()}


def _curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], quantity: str) -> list[Curve]:
    """Those of a panel that have a value."""
    return [
        Curve(*measured, split, colour)
        for rows, colour in zip(runs.values(), cycle(CONTRASTING_COLOURS), strict=False)
        for split in LOOKS
        if len((measured := _measured(rows, f"{split}_{quantity}"))[0])
    ]


def _with_fewer_intervals(curves: Sequence[Curve]) -> list[Curve]:
    """The means alone of a run's training where it has validation."""
    validated = {curve.colour for curve in curves if curve.split == "validation"}
    return [
        curve._replace(values=curve.values.mean(axis=1, keepdims=True))
        if curve.split == "train" and curve.colour in validated
        else curve
        for curve in curves
    ]


def _measured(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [E] at which a quantity was measured, and its values [E, seeds]."""
    values = [(row["epoch"], np.atleast_1d(np.array(row.get(name), dtype=float))) for row in rows]
    present = [(epoch, value) for epoch, value in values if not np.isnan(value).all()]
    if not present:
        return np.empty(0), np.empty((0, 1))
    epochs, measured = zip(*present, strict=True)
    return np.array(epochs), np.stack(measured)


def _draw_mean(axes: Axes, curve: Curve) -> None:
    look = _dot(curve.split, curve.colour) if curve.is_dot else LOOKS[curve.split]
    axes.plot(curve.epochs, curve.values.mean(axis=1), color=curve.colour, zorder=3, **look)


def _dot(split: str, colour: str) -> dict[str, Any]:
    return {"linestyle": "", "marker": "o", "markersize": 4, "markerfacecolor": "white" if split == "train" else colour}


def _draw_bands(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        axes.fill_between(curve.epochs, *curve.intervals.T, color=curve.colour, linewidth=0, alpha=0.2)


def _draw_bars(axes: Axes, curves: Sequence[Curve]) -> None:
    """Intervals at some epochs, each curve's a little aside of the others'."""
    span = max((curve.epochs[-1] for curve in curves), default=0)
    for number, curve in enumerate(curves):
        last = len(curve.epochs) - 1
        chosen = np.unique(np.linspace(0, last, min(MAX_BARS, last + 1)).round().astype(int))
        aside = 0.015 * span * (number - (len(curves) - 1) / 2)
        axes.vlines(curve.epochs[chosen] + aside, *curve.intervals[chosen].T, color=curve.colour, linewidth=1.0)


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


def _outside(axes: Axes, curves: Sequence[Curve]) -> list[str]:
    """Sentences that name the epochs that the panel leaves out."""
    bottom, top = axes.get_ylim()
    words = []
    for where, is_outside in (
        ("below", lambda curve: curve.intervals[:, 0] < bottom),
        ("above", lambda curve: curve.intervals[:, 1] > top),
    ):
        epochs = np.concatenate([np.empty(0), *(curve.epochs[is_outside(curve)] for curve in curves)])
        if epochs.size:
            first, last = int(epochs.min()), int(epochs.max())
            which = f"{first} reaches" if first == last else f"{first} to {last} reach"
            words.append(f"({which} {where})")
    return words


def _set_epoch_ticks(axes: Axes, curves: Sequence[Curve]) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    epochs = {int(epoch) for curve in curves for epoch in curve.epochs}
    if len(epochs) == 1:
        axes.set_xticks(list(epochs))


def _add_legend(figure: Figure, keys: list[Line2D | Patch], *, loc: str) -> None:
    lengths = [len(str(key.get_label())) + 8 for key in keys]
    in_columns = max(1, PAGE_LETTERS // max(lengths, default=1))
    num_columns = len(keys) if 0 < sum(lengths) <= PAGE_LETTERS else in_columns
    look: dict[str, Any] = {"loc": loc, "ncols": num_columns}
    figure.legend(handles=keys, **look)


def _run_keys(names: Sequence[str]) -> list[Line2D | Patch]:
    colours = cycle(CONTRASTING_COLOURS)
    return [Patch(color=colour, label=name) for name, colour in zip(names, colours, strict=False)]


def _look_keys(curves: Sequence[Curve], *, several: bool) -> list[Line2D | Patch]:
    """Keys of the lines or dots of each split, and of the intervals."""
    colour = "0.35" if several else CONTRASTING_COLOURS[0]
    keys: list[Line2D | Patch] = []
    for split, look in LOOKS.items():
        dots = {curve.is_dot for curve in curves if curve.split == split}
        if dots:
            line: dict[str, Any] = look if False in dots else {"linestyle": ""}
            dot = _dot(split, colour) | {"linestyle": line["linestyle"]} if True in dots else {}
            style: dict[str, Any] = line | dot
            keys.append(Line2D([], [], color=colour, label=TITLES[split], **style))
    with_intervals = [curve for curve in curves if curve.has_intervals]
    of_validation = several and {curve.split for curve in with_intervals} == {"validation"}
    which = " of validation" if of_validation else ""
    bar: dict[str, Any] = {"linestyle": "", "marker": "|", "markersize": 9, "markeredgewidth": 1.0}
    for num_seeds in sorted({curve.values.shape[1] for curve in with_intervals}):
        label = f"range{which}, 2 seeds" if num_seeds == 2 else f"95% interval{which}, {num_seeds} seeds"
        if several or any(curve.is_dot for curve in curves):
            keys.append(Line2D([], [], color=colour, label=label, **bar))
        else:
            keys.append(Patch(facecolor=colour, alpha=0.2, label=label))
    return keys
