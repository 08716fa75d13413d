"""Numbers as the tables of every command print them."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


MAX_DECIMALS = 8


def with_error(value: float, error: float) -> str:
    """A value and its standard error, to two digits of the error."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:g} ± {error:g}"
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 6
    if decimals > MAX_DECIMALS:
        return f"{value:.6g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
