"""Numbers as the tables of every command print them."""

import math

MAX_DECIMALS = 8


def with_error(value: float, error: float) -> str:
    """A value and its standard error, to two digits of the error; `?` for an error that is not known (NaN)."""
    if math.isfinite(value) and math.isnan(error):
        return f"{value:.4g} ± ?"
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:g} ± {error:g}"
    decimals = decimals_of(error)
    if decimals > MAX_DECIMALS:
        return f"{value:.6g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def with_std(mean: float, std: float) -> str:
    """A mean and a standard deviation, to two digits of the latter."""
    decimals = min(decimals_of(std), MAX_DECIMALS)
    return f"{mean:.{decimals}f}, {std:.{decimals}f}"


def decimals_of(error: float) -> int:
    """The decimals that show two digits of an error."""
    return max(0, 1 - math.floor(math.log10(error))) if error > 0 else 6


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def short_duration(seconds: float) -> str:
    """Microseconds or milliseconds, for what is done many times."""
    return f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"
