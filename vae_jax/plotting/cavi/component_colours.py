"""A colour for every component of a mixture."""

FEW = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
"""Okabe and Ito's, for up to six components."""

TWELVE = (
    "#9F0162", "#009F81", "#FF5AAF", "#00FCCF", "#8400CD", "#008DF9",
    "#00C2F9", "#FFB2FD", "#A40122", "#E20134", "#FF6E3A", "#FFC33B",
)  # fmt: skip
"""Twelve colours chosen for readers with any of the three colour deficiencies.

Reference: Krzywinski (2020), "Designing for color blindness".
"""

FIFTEEN = (
    "#68023F", "#008169", "#EF0096", "#00DCB5", "#FFCFE2", "#003C86", "#9400E6", "#009FFA",
    "#FF71FD", "#7CFFFA", "#6A0213", "#008607", "#F60239", "#00E307", "#FFDC3D",
)  # fmt: skip
"""Fifteen of the same kind; more components use them again, and are distinguished by their numbers."""

GREY = "#8C8C8C"


def component_colours(num_components: int) -> tuple[str, ...]:
    """Chooses a colour for each component. With more than 15 components colours are used again.

    Example:
        >>> from vae_jax.plotting.cavi import component_colours
        >>> component_colours(3)
        ('#0072B2', '#E69F00', '#009E73')
    """
    palette = next((colours for colours in (FEW, TWELVE) if num_components <= len(colours)), FIFTEEN)
    return tuple(palette[number % len(palette)] for number in range(num_components))
