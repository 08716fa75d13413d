"""The look of every figure."""

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart. Neighbours suit estimators that belong together.
"""

CONTRASTING_COLOURS = tuple(COLOURS[place] for place in (0, 2, 4, 5, 3, 1, 6))
"""The same, the most different first."""

CLASS_COLOURS = (
    "#1e5a78", "#e169a5", "#c3e100", "#4ba5ff", "#784be1", "#c31e00", "#00f0e1", "#690f0f", "#1e00a5", "#b49600",
)  # fmt: skip
"""Ten colours for points of ten classes, as far apart as a search found under normal and colour-blind vision.

The nearest two are 0.20 apart in Oklab, and 0.15 as protanopes and deuteranopes see them (by the matrices of Machado,
Oliveira & Fernandes, 2009). They are in an order that gives digits which look alike, such as 3, 5 and 8, the colours
farthest apart.
"""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}


class StyledFigure(Figure):
    """A figure that is saved in this style too: some of it, such as the fonts of a PDF, is read only then."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Saves the figure, with the arguments of `Figure.savefig`."""
        with mpl.rc_context(STYLE):
            super().savefig(*args, **kwargs)
