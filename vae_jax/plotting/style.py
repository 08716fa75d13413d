"""How every figure looks."""

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart. Neighbours suit estimators that belong together.
"""

CONTRASTING_COLOURS = tuple(COLOURS[place] for place in (0, 2, 4, 5, 3, 1, 6))
"""The same, the most different first."""

CLASS_COLOURS = (
    "#a96b59", "#b9ac70", "#bd1f01", "#92dadd", "#3f90da", "#ffa90e", "#94a4a2", "#717581", "#832db6", "#e76300",
)  # fmt: skip
"""Ten colours for points of ten classes, which colour-blind readers can tell apart.

They are in an order that gives digits which look alike, such as 3, 5 and 8, colours which do not.

Reference: Petroff (2021), "Accessible color sequences for data visualization".
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
