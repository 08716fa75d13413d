"""The rules of a setting, declared once with its type: its range, and the other settings without which it does nothing.

A setting is a field of a dataclass, such as `batch_size: Annotated[int, AT_LEAST_1] = 64`. Checks and messages are
derived from the annotation. Importing this file does not import JAX.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may hold; each number of a tuple is checked, and None is let through.

    Args:
        least, most: the ends.
        open_least, open_most: whether an end itself is excluded.
    """

    least: int | float = -math.inf
    most: int | float = math.inf
    open_least: bool = False
    open_most: bool = False

    def __contains__(self, number: int | float) -> bool:
        above = number > self.least if self.open_least else number >= self.least
        below = number < self.most if self.open_most else number <= self.most
        return above and below

    def __str__(self) -> str:
        if self.most == math.inf:
            finite = "finite and " if self.open_most else ""
            return f"{finite}{'above' if self.open_least else 'at least'} {self.least:,.12g}"
        if self.open_least or self.open_most or isinstance(self.most, float):
            return f"in {'(['[not self.open_least]}{self.least:g}, {self.most:g}{')]'[not self.open_most]}"
        return f"from {self.least:,} to {self.most:,}"


AT_LEAST_0 = Range(0)
AT_LEAST_1 = Range(1)
AT_LEAST_2 = Range(2)
FINITE_AND_NOT_NEGATIVE = Range(0, open_most=True)
FINITE_AND_POSITIVE = Range(0, open_least=True, open_most=True)
SHARE = Range(0.0, 1.0)
POSITIVE_SHARE = Range(0.0, 1.0, open_least=True)
DECAY = Range(0.0, 1.0, open_most=True)
SEED = Range(0, 2**32 - 1)


def check_settings(settings: Any, *, named: Callable[[str], str] = str) -> None:
    """Refuses values of another type than declared, outside the choices, or outside the range.

    Args:
        settings: a dataclass. Fields that are dataclasses themselves are not looked into.
        named: a field's name to what messages call it, such as its flag.

    Raises:
        ValueError: one line that names the setting, what it must be and what it was.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for name in (field.name for field in fields(settings)):
        value, (hint, rules) = getattr(settings, name), _unwrapped(hints[name])
        if not _fits(value, hint):
            raise ValueError(f"{named(name)} must be {_expected(hint)}, got {value!r}: use one of these")
        numbers = value if isinstance(value, tuple) else (value,)
        for allowed in (rule for rule in rules if isinstance(rule, Range)):
            if not all(number is None or number in allowed for number in numbers):
                raise ValueError(f"{named(name)} must be {allowed}, got {value}: choose another number")


def rules_of(settings: type, kind: type) -> dict[str, list[Any]]:
    """The rules of one kind that each field of a dataclass is annotated with, by the field's name."""
    hints = get_type_hints(settings, include_extras=True)
    found = {name: [rule for rule in _unwrapped(hint)[1] if isinstance(rule, kind)] for name, hint in hints.items()}
    return {name: rules for name, rules in found.items() if rules}


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its annotation, and the annotation."""
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    match get_origin(hint):
        case origin if origin is Annotated:
            return _fits(value, get_args(hint)[0])
        case origin if origin is Literal:
            return value in get_args(hint)
        case origin if origin in (UnionType, Union):
            return any(_fits(value, option) for option in get_args(hint))
        case origin if origin is tuple:
            return isinstance(value, tuple) and all(_fits(element, get_args(hint)[0]) for element in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        *others, last = get_args(hint)
        return f"{', '.join(others)} or {last}"
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
