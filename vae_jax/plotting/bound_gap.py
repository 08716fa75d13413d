"""The figure of the evidence lower bound as q moves."""

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure


def bound_gap(
    positions: Float[Array | np.ndarray, " T"],
    elbo: Float[Array | np.ndarray, " T"],
    kl: Float[Array | np.ndarray, " T"],
    log_evidence: float,
    *,
    xlabel: str,
) -> Figure:
    """Plots log p(x) = ELBO + KL(q || p(z|x)) as q moves: the KL fills the gap up to the constant log p(x).

    The dots are the sums. Where they miss the line of log p(x), the ELBO or the KL is wrong.

    Args:
        positions: values of the parameter of q that moves, such as its location [T].
        elbo: ELBO at each value [T] (nats).
        kl: KL(q || p(z|x)) at each value [T] (nats).
        log_evidence: log p(x) (nats).
        xlabel: name of the parameter that moves.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import bound_gap
        >>> loc = np.linspace(-1, 1, 30)
        >>> figure = bound_gap(loc, elbo=-2 - loc**2, kl=loc**2, log_evidence=-2.0, xlabel="location of q")
        >>> (axes,) = figure.axes
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('location of q', 'nats')
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
