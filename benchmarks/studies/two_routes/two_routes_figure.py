"""Figure of the draws of each route above, and of the gradients' bias and variance below."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend

from benchmarks.figure_drawing import draw_measured
from benchmarks.studies.two_routes.exact_relaxed_gradients import exact_gradient, exact_moments
from benchmarks.studies.two_routes.route_draws import softmax_route
from benchmarks.studies.two_routes.two_routes_setting import (
    HISTOGRAM_TEMPERATURES,
    NUM_SAMPLES,
    PROBS,
    RATE,
    SHOWN,
    TEMPERATURES,
)
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE, StyledFigure

SHADES = ("#662506", "#cc4c02", "#fe9929", "#fec44f")
"""The lower the temperature, the darker: from ColorBrewer's YlOrBr, whose order shows in grey too."""

# REBAR's points lie under the score function's: large and hollow they show around them.
ESTIMATOR_LOOKS = {
    "gumbel_softmax": (COLOURS[4], MARKERS[0], 3.5, COLOURS[4]),
    "straight_through": (COLOURS[5], MARKERS[1], 3.5, COLOURS[5]),
    "rebar": (COLOURS[6], MARKERS[3], 5.5, "none"),
    "score_function+leave_one_out": ("#777777", MARKERS[2], 2.5, "#777777"),
}


def draw_figure(
    results: dict[str, Any], exponential: dict[str, np.ndarray], relaxed: dict[float, np.ndarray]
) -> StyledFigure:
    """A panel for each question, and the keys of two that have no room for theirs."""
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.2, 4.7), layout="constrained")
        axes = figure.subplot_mosaic([["exponential", "categorical", "relaxed"], ["bias", "variance", "key"]])
        _draw_exponential(axes["exponential"], exponential, results["exponential"])
        _draw_categorical(axes["categorical"], results["categorical"]["routes"])
        _draw_relaxed(axes["relaxed"], relaxed)
        _draw_against_temperature(axes["bias"], results["relaxation"]["rows"], "bias", "mean_se")
        _draw_against_temperature(axes["variance"], results["relaxation"]["rows"], "variance", "variance_se")
        _finish_gradient_panels(axes["bias"], axes["variance"])
        axes["key"].set_axis_off()
        _draw_key(axes["key"], axes["categorical"], "category drawn by (χ² test)", "upper left")
        _draw_key(axes["key"], axes["variance"], "gradient by", "lower left")
    return figure


def _draw_key(axes: Axes, of: Axes, title: str, place: Any) -> None:
    handles, labels = of.get_legend_handles_labels()
    # Two legends of one axes: `Axes.legend` would replace the first.
    legend = Legend(
        axes, handles, labels, loc=place, title=title, alignment="left", fontsize=7, title_fontsize=7,
        labelspacing=0.25, handlelength=1.2, borderaxespad=0, bbox_to_anchor=(-0.12, 0, 1, 1),
    )  # fmt: skip
    axes.add_artist(legend)


def _draw_exponential(axes: Axes, draws: dict[str, np.ndarray], compared: dict[str, Any]) -> None:
    bins = np.linspace(0, 4, 41)
    looks: Sequence[dict[str, Any]] = (
        {"histtype": "stepfilled", "color": COLOURS[1], "alpha": 0.6},
        {"histtype": "step", "color": COLOURS[2], "linewidth": 1.0},
    )
    for row, look in zip(compared["routes"], looks, strict=True):
        samples = draws[row["route"]]
        weights = np.full(len(samples), 1 / (len(samples) * (bins[1] - bins[0])))
        axes.hist(samples, bins=bins.tolist(), weights=weights, label=f"{row['route']} ({_p(row)})", **look)
    axes.plot(bins, RATE * np.exp(-RATE * bins), color="black", linewidth=0.8, linestyle="--", label="exact")
    axes.set(xlabel="x", ylabel="density", title=f"Exponential({RATE:g})")
    axes.legend(
        loc="upper right", title="KS test", alignment="left", fontsize=7, title_fontsize=7, handlelength=1.2,
        borderaxespad=0,
    )  # fmt: skip


def _p(row: dict[str, Any]) -> str:
    return f"p = {row['p_value']:.2f}"


def _draw_categorical(axes: Axes, rows: list[dict[str, Any]]) -> None:
    width = 0.8 / len(rows)
    for place, row in enumerate(rows):
        colour = _route_colours()[row["route"]]
        positions = np.arange(len(PROBS)) + (place - (len(rows) - 1) / 2) * width
        errors = 2 * np.asarray(row["frequencies_se"])
        label = f"{row['route'].replace('softmax ', 'softmax, τ = ')} ({_p(row)})"
        axes.bar(
            positions, row["frequencies"], width, yerr=errors, color=colour, label=label, error_kw={"linewidth": 0.6}
        )
    for category, probability in enumerate(PROBS):
        exact = "exact" if category == 0 else "_"
        axes.hlines(probability, category - 0.46, category + 0.46, color="black", linewidth=0.8, label=exact)
    axes.set_xticks(range(len(PROBS)))
    axes.set(xlabel="category", ylabel="frequency", title="Categorical")


def _draw_relaxed(axes: Axes, draws: dict[float, np.ndarray]) -> None:
    bins = np.linspace(0, 1, 41)
    for temperature, samples in draws.items():
        route = softmax_route(temperature)
        axes.hist(
            samples[:, SHOWN], bins=bins.tolist(), density=True, histtype="step", color=_route_colours()[route],
            linewidth=1.0, label=route,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set(xlabel=f"coordinate {SHOWN} of a sample", ylabel="density", title="Gumbel-softmax")


def _route_colours() -> dict[str, str]:
    softmax = [softmax_route(temperature) for temperature in HISTOGRAM_TEMPERATURES]
    return dict(zip(("direct", "Gumbel-max", *softmax), (COLOURS[1], COLOURS[0], *SHADES), strict=True))


def _draw_against_temperature(axes: Axes, rows: list[dict[str, Any]], field: str, error: str) -> None:
    """Measured points on the exact lines that are known."""
    line_temperatures = np.geomspace(TEMPERATURES[0], TEMPERATURES[-1], 25)
    exact = exact_gradient()
    for name, (colour, marker, size, fill) in ESTIMATOR_LOOKS.items():
        members = [row for row in rows if row["estimator"] == name]
        draw_measured(
            axes,
            [row["temperature"] for row in members],
            [row[field][SHOWN] for row in members],
            [row[error][SHOWN] for row in members],
            fmt=marker, color=colour, markersize=size, markerfacecolor=fill, label=name,
        )  # fmt: skip
        moments = [exact_moments(name, float(temperature)) for temperature in line_temperatures]
        line = [mean[SHOWN] - exact[SHOWN] if field == "bias" else _shown(variance) for mean, variance in moments]
        axes.plot(line_temperatures, line, color=colour, linewidth=0.9)


def _shown(variance: np.ndarray | None) -> float:
    return float("nan") if variance is None else float(variance[SHOWN])


def _finish_gradient_panels(bias: Axes, variance: Axes) -> None:
    lowest = -exact_gradient()[SHOWN]
    bias.axhline(lowest, color="grey", linewidth=0.8, linestyle=":")
    bias.annotate(
        "minus the gradient itself", (TEMPERATURES[0], lowest), (0, 3), textcoords="offset points", color="grey"
    )
    bias.set(ylabel=f"bias of ∂ / ∂ logit {SHOWN}", title="Bias")
    variance.set_yscale("log")
    variance.set(ylabel=f"variance of ∂ / ∂ logit {SHOWN}", title=f"Variance, {NUM_SAMPLES} samples")
    for axes in (bias, variance):
        axes.set_xscale("log")
        axes.set_xlabel("temperature τ")
        axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        axes.minorticks_off()
