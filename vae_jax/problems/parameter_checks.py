"""Names of the elements of a problem's parameters, and refusals of values that it is not defined at."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np


def element_names(name: str, value: Any) -> tuple[str, ...]:
    """The names of a parameter's elements: "loc" of a number, "logits[0]" and so on of a vector."""
    shape = np.shape(value)
    return tuple(f"{name}[{','.join(map(str, index))}]" for index in np.ndindex(shape)) if shape else (name,)


def check_names(params: Mapping[str, Any], names: Collection[str]) -> None:
    """Raises ValueError unless `params` holds these names and no others."""
    if set(params) != set(names):
        raise ValueError(f"params must be {', '.join(names)}, got {', '.join(params) or 'none'}: name these alone")


def check_finite(values: Mapping[str, float | Sequence[float]]) -> None:
    """Raises ValueError for the first number that is not finite, of numbers and sequences by name."""
    for name, value in values.items():
        for number in np.ravel(value).tolist():
            if not math.isfinite(number):
                raise ValueError(f"{name} must be finite, got {number}: change it")


def check_positive(values: Mapping[str, float]) -> None:
    """Raises ValueError for the first number that is not finite, or not positive."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}: change it")
