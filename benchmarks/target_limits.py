"""Targets with their limits, compared with the worst value that was measured."""

from collections.abc import Callable, Iterable
from typing import Any


def at_most(target: str, limit: float, values: Iterable[float]) -> dict[str, Any]:
    """A target that no value may exceed."""
    return _judged(target, limit, max(values, default=None), lambda worst: worst <= limit)


def at_least(target: str, limit: float, values: Iterable[float]) -> dict[str, Any]:
    """A target that every value must reach."""
    return _judged(target, limit, min(values, default=None), lambda worst: worst >= limit)


def _judged(target: str, limit: float, worst: float | None, holds: Callable[[float], bool]) -> dict[str, Any]:
    return {"target": target, "limit": limit, "worst": worst, "met": None if worst is None else holds(worst)}
