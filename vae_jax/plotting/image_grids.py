"""Figures made of images: white on black, on one scale from 0 to 1."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Array, Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtri

from vae_jax.plotting.style import COLOURS, STYLE, StyledFigure

MAX_WIDTH = 6.0
"""Width of all tiles together, in inches: a page's."""

MAX_TILE = 0.6
"""Width of one tile in inches."""

GAP = 0.04
"""Between tiles, in widths of a tile."""

INSET = 0.02
"""Distance of the middle of a frame's line from the edge of a tile, in widths of a tile."""


def image_grid(images: Num[Array | np.ndarray, "N ..."], *, num_columns: int = 8) -> Figure:
    """Draws images side by side, row by row.

    Args:
        images: intensities in [0, 1], [N, H, W] or [N, H, W, C] with 1 or 3 channels.
        num_columns: number of images in a row.

    Raises:
        ValueError: the images are flat or integers, or there is no image or no column.

    Example:
        Six images in rows of four:

        >>> import numpy as np
        >>> from vae_jax.plotting import image_grid
        >>> (axes,) = image_grid(np.zeros((6, 8, 8)), num_columns=4).axes
        >>> len(axes.images)
        6
    """
    checked = _checked(images, "images", "N")
    if num_columns < 1:
        raise ValueError(f"num_columns must be at least 1, got {num_columns}: raise it")
    rows = [checked[start : start + num_columns] for start in range(0, len(checked), num_columns)]
    with mpl.rc_context(STYLE):
        figure, _ = _draw_tiles(rows)
        return _trimmed(figure)


def reconstructions(
    originals: Num[Array | np.ndarray, "N ..."], reconstructed: Mapping[str, Num[Array | np.ndarray, "N ..."]]
) -> Figure:
    """Draws a row of original images, and under it a row of each model's reconstructions.

    Args:
        originals: intensities in [0, 1], [N, H, W] or [N, H, W, C] with 1 or 3 channels.
        reconstructed: images of the same shape, by the names of their models.

    Raises:
        ValueError: the images are flat or integers, there is no image, or shapes differ.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import reconstructions
        >>> originals = np.zeros((3, 8, 8))
        >>> (axes,) = reconstructions(originals, {"VAE": originals, "IWAE": originals}).axes
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['original', 'VAE', 'IWAE']
    """
    rows = {"original": _checked(originals, "originals", "N")}
    for name, images in reconstructed.items():
        rows[name] = _checked(images, f"reconstructed[{name!r}]", "N")
        if rows[name].shape != rows["original"].shape:
            raise ValueError(
                f"reconstructed[{name!r}] must have the originals' shape {np.shape(originals)}, "
                f"got {np.shape(images)}: hand in one image for each original"
            )
    with mpl.rc_context(STYLE):
        figure, axes = _draw_tiles(list(rows.values()))
        _, height = _tile_size(rows["original"][0])
        axes.set_yticks([_offset(row, height) + height / 2 for row in range(len(rows))], list(rows))
        return _trimmed(figure)


def interpolation(images: Num[Array | np.ndarray, "R S ..."]) -> Figure:
    """Draws paths between pairs of original images, one in each row. The originals, at the ends, are framed.

    Args:
        images: intensities in [0, 1], [R, S, H, W] or [R, S, H, W, C] with 1 or 3 channels: row r leads in S steps from
            images[r, 0] to images[r, -1].

    Raises:
        ValueError: the images are flat or integers, there is no row, or there are fewer than two steps.

    Example:
        Two paths of five images, of which the four ends are framed:

        >>> import numpy as np
        >>> from vae_jax.plotting import interpolation
        >>> (axes,) = interpolation(np.zeros((2, 5, 8, 8))).axes
        >>> len(axes.images), len(axes.patches)
        (10, 4)
    """
    rows = _checked(images, "images", "R, S")
    num_steps = rows.shape[1]
    if num_steps < 2:
        raise ValueError(f"images must have at least 2 steps a row, got {num_steps}: hand in both ends")
    with mpl.rc_context(STYLE):
        figure, axes = _draw_tiles(list(rows))
        width, height = _tile_size(rows[0, 0])
        ends = [_offset(column, width) for column in (0, num_steps - 1)]
        for row in range(len(rows)):
            for left in ends:
                corner = (left + INSET, _offset(row, height) + INSET)
                size = (width - 2 * INSET, height - 2 * INSET)
                axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=COLOURS[3], linewidth=1.5))
        axes.set_xticks([left + width / 2 for left in ends], ["original", "original"])
        axes.xaxis.tick_top()
        # Moving the ticks to the top brings their marks back.
        axes.tick_params(length=0, pad=2)
        return _trimmed(figure)


def manifold(
    images: Num[Array | np.ndarray, "R C ..."],
    z1: Float[Array | np.ndarray, " C"] | None = None,
    z2: Float[Array | np.ndarray, " R"] | None = None,
) -> Figure:
    """Draws images decoded from a grid of two latents, by default at quantiles of the standard normal prior.

    The values of z_1 grow to the right and those of z_2 upwards: images[0, 0] is at the bottom left.

    Args:
        images: intensities in [0, 1], [R, C, H, W] or [R, C, H, W, K] with 1 or 3 channels: images[r, c] is decoded
            from z_1 = z1[c] and z_2 = z2[r].
        z1: values of z_1 [C], by default the prior's quantiles at (c + 1/2) / C.
        z2: values of z_2 [R], by default the prior's quantiles at (r + 1/2) / R.

    Raises:
        ValueError: the images are flat or integers, there is no image, or the values are not one increasing number for
            each column or row.

    Example:
        >>> import numpy as np
        >>> from vae_jax.plotting import manifold
        >>> (axes,) = manifold(np.zeros((3, 3, 8, 8)), z1=np.array([-1.0, 0.0, 1.0])).axes
        >>> axes.get_xlabel(), axes.get_ylabel(), len(axes.images)  # the tiles are one mosaic
        ('z₁', 'z₂', 1)
    """
    tiles = _checked(images, "images", "R, C")
    num_rows, num_columns, height, width = tiles.shape[:4]
    columns, rows = _checked_values(z1, num_columns, "z1"), _checked_values(z2, num_rows, "z2")
    mosaic = np.moveaxis(tiles[::-1], 1, 2).reshape(num_rows * height, num_columns * width, *tiles.shape[4:])
    with mpl.rc_context(STYLE):
        across = min(MAX_WIDTH, MAX_TILE * num_columns)
        figure, axes = _empty_axes(across, across * len(mosaic) / mosaic.shape[1])
        axes.imshow(mosaic, extent=(0, num_columns, 0, num_rows), aspect="auto", cmap="gray", vmin=0, vmax=1)
        axes.set_xticks(*_value_ticks(columns))
        axes.set_yticks(*_value_ticks(rows))
        axes.tick_params(length=2.5)
        axes.set_xlabel("z₁")
        axes.set_ylabel("z₂")
        return _trimmed(figure)


def _checked(images: Num[Array | np.ndarray, "..."], name: str, leading: str) -> np.ndarray:
    """Images as floats, [*leading, H, W] when grey and [*leading, H, W, 3] in colour."""
    array = np.asarray(images)
    num_axes = len(leading.split(",")) + 2
    if array.ndim not in (num_axes, num_axes + 1):
        raise ValueError(
            f"{name} must be [{leading}, H, W] or [{leading}, H, W, C], got shape {array.shape}: reshape flat images"
        )
    if array.dtype.kind in "biu":
        raise ValueError(f"{name} must be floats in [0, 1], got {array.dtype}: convert (and divide by 255 if bytes)")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one image, got shape {array.shape}: hand in more")
    array = array.astype(float)
    if array.ndim == num_axes:
        return array
    if array.shape[-1] not in (1, 3):
        raise ValueError(f"{name} must have 1 or 3 channels last, got shape {array.shape}: move or choose channels")
    return array[..., 0] if array.shape[-1] == 1 else np.clip(array, 0, 1)


def _checked_values(values: Float[Array | np.ndarray, " V"] | None, number: int, name: str) -> np.ndarray:
    if values is None:
        return ndtri((np.arange(number) + 0.5) / number)
    array = np.asarray(values, dtype=float)
    if array.shape != (number,) or np.any(np.diff(array) <= 0):
        raise ValueError(f"{name} must be {number} increasing values, got {array}: hand in one a column or row")
    return array


def _value_ticks(values: np.ndarray) -> tuple[list[float], list[str]]:
    """Places, in tiles, and labels of round numbers within the range of `values`. Tile i has its centre at i + 1/2."""
    low, high = values[[0, -1]]
    candidates = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)
    shown = np.array([value for value in candidates if low <= value <= high and low < high] or [low])
    places = np.interp(shown, values, np.arange(len(values)) + 0.5)
    return list(places), [f"{value:.3g}".replace("-", "−") for value in shown]


def _tile_size(image: np.ndarray) -> tuple[float, float]:
    """Width and height in widths."""
    return 1.0, image.shape[0] / image.shape[1]


def _offset(place: int, size: float) -> float:
    """Where the tile with number `place` of that size begins, in widths."""
    return place * (size + GAP)


def _draw_tiles(rows: Sequence[np.ndarray]) -> tuple[Figure, Axes]:
    """Rows of images of one size, from the top left, in axes whose unit is the width of an image."""
    width, height = _tile_size(rows[0][0])
    num_columns = max(len(row) for row in rows)
    across = _offset(num_columns, width) - GAP
    down = _offset(len(rows), height) - GAP
    unit = min(MAX_TILE, MAX_WIDTH / across)
    figure, axes = _empty_axes(across * unit, down * unit)
    for number, row in enumerate(rows):
        top = _offset(number, height)
        for column, image in enumerate(row):
            left = _offset(column, width)
            extent = (left, left + width, top + height, top)
            axes.imshow(image, extent=extent, aspect="auto", cmap="gray", vmin=0, vmax=1)
    axes.set_xlim(0, across)
    axes.set_ylim(down, 0)
    return figure, axes


def _empty_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Axes of that size in inches that fill their figure, without frame or ticks."""
    figure = StyledFigure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    return figure, axes


def _trimmed(figure: Figure, pad: float = 0.03) -> Figure:
    """The figure made as large as its one axes and their labels need, the axes keeping their size in inches."""
    (axes,) = figure.axes
    inner, outer = axes.get_position(), figure.get_tightbbox()
    old_width, old_height = figure.get_size_inches()
    width, height = outer.width + 2 * pad, outer.height + 2 * pad
    figure.set_size_inches(width, height)
    left, bottom = inner.x0 * old_width - outer.x0 + pad, inner.y0 * old_height - outer.y0 + pad
    axes.set_position(
        (left / width, bottom / height, inner.width * old_width / width, inner.height * old_height / height)
    )
    return figure
