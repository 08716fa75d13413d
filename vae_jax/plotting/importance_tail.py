"""The largest importance weights and the Pareto distribution fitted to them."""

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from vae_jax.inference.diagnostics import (
    fit_tail,
    reliability_threshold,
    tail_length,
)
from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

MARKED_DECADE = 10.0
"""Below such a ratio of the ends, an axis may hold no power of ten to mark."""


def importance_tail(log_weights: Float[ArrayLike, " S"]) -> Figure:
    """Plots the largest importance weights and the generalised Pareto distribution fitted to them.

    The axes are logarithmic: the tail of a Pareto distribution is a line of slope -1 / k.

    Args:
        log_weights: log p(x, z) - log q(z) at S samples of q [S] (nats), up to a constant.

    Raises:
        ValueError: the tail cannot be fitted, because it is too short, constant or not finite.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import importance_tail
        >>> log_weights = np.random.default_rng(0).exponential(0.2, 200)
        >>> (axes,) = importance_tail(log_weights).axes
        >>> axes.get_xlabel(), axes.get_title().split(": ")[1]
        ('weight w / mean weight', 'reliable (below 0.57 is)')
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
