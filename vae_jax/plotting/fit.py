"""Figures of a fit: how the ELBO rose, and the fitted distribution beside its reference."""

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from vae_jax import distributions
from vae_jax.cli.fit.fit_summaries import ProblemFit, RegressionFit
from vae_jax.inference.fit.fit import Fit
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure
from vae_jax.problems.poisson_gamma.poisson_gamma_posterior import exact_marginals

FITTED, REFERENCE = COLOURS[2], COLOURS[0]

MASSES = (0.9, 0.5)
"""Of the regions that contours enclose."""

GRID = 201

WIDTH = 3.5
"""Standard deviations of the posterior that are drawn on each side."""

INTERVAL = 1.96

MOST_POINTS = 2_000

NUM_DRAWS = 50_000
"""That a marginal without a closed form is smoothed from."""


def poisson_gamma_fit(result: ProblemFit) -> Figure:
    """The ELBO by step, the joint density of u and v, and its marginals, against the exact posterior."""
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.0, 2.7), layout="constrained")
        axes = figure.subplot_mosaic([["elbo", "joint", "u"], ["elbo", "joint", "v"]], width_ratios=(1.15, 1, 1))
        _draw_history(axes["elbo"], result.fitted, bound=result.exact.log_evidence)
        _draw_joint(axes["joint"], result)
        for name in ("u", "v"):
            _draw_marginal(axes[name], name, result)
        handles = [
            Line2D([], [], color=REFERENCE, label="exact posterior"),
            Line2D([], [], color=FITTED, linestyle=(0, (4, 1.5)), label="fitted q"),
        ]
        _add_legend(figure, axes["elbo"], handles)
    return figure


def regression_fit(result: RegressionFit) -> Figure:
    """The ELBO by step, the coefficients against Laplace's, and the fitted mean over the strongest predictors."""
    strongest = np.argsort(-np.abs(result.moments.mean[1:]))[:2]
    with mpl.rc_context(STYLE):
        figure = StyledFigure(figsize=(7.2 if len(strongest) > 1 else 6.0, 2.6), layout="constrained")
        axes = figure.subplots(1, 2 + len(strongest))
        _draw_history(axes[0], result.fitted, bound=float(result.reference.log_evidence))
        _draw_coefficients(axes[1], result)
        for number, predictor in enumerate(strongest):
            _draw_response(axes[2 + number], result, int(predictor))
        axes[2].set_ylabel(result.response)
        handles = [
            Line2D([], [], color=REFERENCE, label="Laplace"),
            Line2D([], [], color=FITTED, label="fit, 95%"),
        ]
        _add_legend(figure, axes[0], handles)
    return figure


def _add_legend(figure: Figure, history: Axes, handles: list[Any]) -> None:
    handles = [*history.get_legend_handles_labels()[0], *handles]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2, handlelength=1.6)


def _draw_history(axes: Axes, fitted: Fit, *, bound: float) -> None:
    """Estimates by step, their means by window with standard errors, and log p(x) or what stands for it."""
    history, means, errors = fitted.elbo_history, fitted.window_means, fitted.window_mean_ses
    window = len(history) // len(means)
    steps = np.arange(1, len(history) + 1)
    shown = slice(None, None, max(1, len(history) // MOST_POINTS))
    axes.plot(steps[shown], history[shown], ".", markersize=1, color="0.75", rasterized=True, label="step")
    centers = (np.arange(len(means)) + 0.5) * window
    axes.errorbar(
        centers, means, yerr=errors, fmt="o-", markersize=2.5, linewidth=0.9, elinewidth=0.9, color="black",
        label="mean of a window ± se",
    )  # fmt: skip
    axes.axhline(bound, color=REFERENCE, linewidth=0.9)
    spread = history[len(history) // 2 :].std()
    # The first window is the climb, next to which the rest would look level.
    low = min(np.quantile(history[window:], 0.02), means[1:].min()) - spread
    axes.set_ylim(low, max(bound, means.max(), np.quantile(history, 0.98)) + 2 * spread)
    axes.set_xlim(0, len(history) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.axvline(len(history), color="0.4", linewidth=0.8, linestyle=(0, (1, 1.5)))
    axes.set_title(f"stopped after {len(history):,} steps" if fitted.converged else f"after {len(history):,} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("ELBO (nats)")


def _draw_joint(axes: Axes, result: ProblemFit) -> None:
    exact = result.exact
    u = _reach(exact.mean_u, exact.std_u)
    v = _reach(exact.mean_v, exact.std_v)
    latents = {name: jnp.asarray(grid) for name, grid in zip("uv", np.meshgrid(u, v), strict=True)}
    for log_density, colour, style in (
        (result.problem.log_joint, REFERENCE, "solid"),
        (lambda sample: distributions.log_prob(result.fitted.posterior, sample), FITTED, "dashed"),
    ):
        logs = np.asarray(jax.vmap(jax.vmap(log_density))(latents), float)
        density = np.exp(logs - logs.max())
        levels = [_level(density, mass) for mass in MASSES]
        axes.contour(u, v, density, levels=levels, colors=colour, linestyles=style, linewidths=1.1)
    axes.set_title("50% and 90% regions")
    axes.set_xlabel("u")
    axes.set_ylabel("v")


def _reach(mean: float, std: float) -> np.ndarray:
    return np.linspace(max(mean - WIDTH * std, 0.01 * mean), mean + WIDTH * std, GRID)


def _level(density: np.ndarray, mass: float) -> float:
    """The density above which that much of the mass lies."""
    ordered = np.sort(density.ravel())[::-1]
    return float(ordered[np.searchsorted(np.cumsum(ordered) / ordered.sum(), mass)])


def _draw_marginal(axes: Axes, name: str, result: ProblemFit) -> None:
    points, density = exact_marginals(result.problem)[name]
    mean, std = getattr(result.exact, f"mean_{name}"), getattr(result.exact, f"std_{name}")
    axes.plot(points, density, color=REFERENCE, linewidth=1.2)
    grid = _reach(mean, std)
    axes.plot(grid, _marginal_of_q(result, name, grid), color=FITTED, linewidth=1.2, linestyle=(0, (4, 1.5)))
    axes.axvline(mean, color=REFERENCE, linewidth=0.6)
    axes.axvline(result.moments[name][0].value, color=FITTED, linewidth=0.6, linestyle=(0, (4, 1.5)))
    axes.set_xlim(0, grid[-1])
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(name, labelpad=1)
    if name == "u":
        axes.set_title("marginals and their means")


def _marginal_of_q(result: ProblemFit, name: str, grid: np.ndarray) -> np.ndarray:
    q = result.fitted.posterior
    if isinstance(q, dict):
        log_density = jax.vmap(lambda value: distributions.log_prob(q[name], value))
        return np.exp(np.asarray(log_density(jnp.asarray(grid)), float))
    draws = np.asarray(distributions.sample(q, jax.random.key(0), NUM_DRAWS)[name], float)
    # Of the logarithm, so that no density leaks below zero.
    return gaussian_kde(np.log(draws))(np.log(grid)) / grid


def _draw_coefficients(axes: Axes, result: RegressionFit) -> None:
    """Intervals in units of Laplace's standard deviations, as those of several coefficients are not of one size."""
    mode, scale = np.asarray(result.reference.mode, float), np.asarray(result.reference.marginal_scale, float)
    places = np.arange(len(mode))[::-1]
    for offset, mean, std, colour, marker in (
        (0.12, mode, scale, REFERENCE, "s"),
        (-0.12, result.moments.mean, result.moments.std, FITTED, "o"),
    ):
        axes.errorbar(
            (mean - mode) / scale, places + offset, xerr=INTERVAL * std / scale, fmt=marker, markersize=3.5,
            linewidth=1.1, color=colour,
        )  # fmt: skip
    rows = result.rows()
    labels = [f"{row['coefficient'].strip('()')}\n{row['laplace_mean']:.3f}" for row in rows]
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(mode) - 0.4)
    axes.set_xlim(-3.2, 3.2)
    axes.axvline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.set_title("coefficients")
    axes.set_xlabel("less Laplace's mean, in its stds")


def _draw_response(axes: Axes, result: RegressionFit, predictor: int) -> None:
    """The data, and the fitted mean with the other predictors at their means."""
    regression = result.regression
    column = regression.predictors[:, predictor]
    shown = slice(None, None, max(1, len(column) // MOST_POINTS))
    axes.plot(column[shown], regression.response[shown], ".", markersize=2, color="0.7", rasterized=True)
    grid = np.linspace(column.min(), column.max(), GRID)
    at = np.tile(regression.means, (GRID, 1))
    at[:, predictor] = grid
    design = regression.design(at)
    axes.plot(
        grid, np.exp(design @ np.asarray(result.reference.mode, float)), color=REFERENCE, linewidth=2.2, alpha=0.5
    )
    means = np.exp(design @ result.draws[:2_000].T)
    low, high = np.quantile(means, (0.025, 0.975), axis=1)
    axes.fill_between(grid, low, high, color=FITTED, alpha=0.35, linewidth=0)
    axes.plot(grid, np.exp(design @ result.moments.mean), color=FITTED, linewidth=1.0)
    axes.set_title("fitted mean")
    axes.set_xlabel(regression.names[predictor])
    axes.set_ylim(bottom=0)
