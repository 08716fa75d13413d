"""The rules of a setting, declared once with its type: its range, and the other settings without which it does nothing.

A setting is a field of a dataclass, followed by its docstring:

    @dataclass(frozen=True)
    @documented
    class Ascent:
        num_steps: Annotated[int, AT_LEAST_1] = 100
        '''Steps of the optimizer.'''
        momentum: Annotated[float, DECAY, AppliesWith(optimizer=("sgd",))] = 0.0
        '''Decay of the velocity.'''

Checks, messages, the help of a command and tables for documentation are derived from that. Importing this file does not
import JAX.
"""

import ast
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Settings = TypeVar("Settings")


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


@dataclass(frozen=True)
class OtherThan:
    """Every value of a setting but one."""

    value: Any

    def __contains__(self, value: Any) -> bool:
        return value != self.value

    def __str__(self) -> str:
        return f"other than {self.value}"


GIVEN = OtherThan(None)
LEFT_OUT = (None,)


class AppliesWith:
    """The values of other settings with which a setting has an effect; without one of them it does nothing.

    `AppliesWith(schedule=("linear", "cyclical"), num_validation=OtherThan(0))` takes the values of each other setting
    by its name, `GIVEN` those other than None, and `LEFT_OUT` None alone. The other settings may be in another part of
    the same nested dataclass.
    """

    def __init__(self, **needed: tuple[Any, ...] | OtherThan) -> None:
        self.needed = needed

    def unmet(self, values: Mapping[str, Any]) -> str | None:
        """The first other setting, of all settings' values by name, that leaves the setting without effect."""
        return next((name for name, needed in self.needed.items() if values[name] not in needed), None)

    def remedy(self, name: str, called: str) -> str:
        """The change of another setting, named as messages call it, that gives the setting an effect."""
        needed = self.needed[name]
        if needed == GIVEN:
            return f"add {called}"
        return f"leave out {called}" if needed == LEFT_OUT else f"choose {called} {_words(needed)}"

    def described(self, named: Callable[[str], str]) -> str:
        """The condition as a phrase, with the settings as `named` calls them."""
        return ", and ".join(
            named(name)
            if needed == GIVEN
            else f"without {named(name)}"
            if needed == LEFT_OUT
            else f"{named(name)} {_words(needed)}"
            for name, needed in self.needed.items()
        )

    def __str__(self) -> str:
        return self.described(str)


def _words(needed: tuple[Any, ...] | OtherThan) -> str:
    return str(needed) if isinstance(needed, OtherThan) else _either(needed)


def documented(settings: type[Settings]) -> type[Settings]:
    """Gives each field of a class its docstring as help; decorates a class that is about to become a dataclass.

    The help is `metadata["help"]` of a field, where tyro finds it. It states the condition of an `AppliesWith` too.
    """
    conditions = rules_of(settings, AppliesWith)
    for name, text in _docstrings(settings.__module__).get(settings.__name__, {}).items():
        conditional = "".join(_sentence(condition) for condition in conditions.get(name, []))
        metadata = {"help": text + conditional, "docstring": text}
        setattr(settings, name, _with_metadata(getattr(settings, name, MISSING), metadata))
    return settings


def flag_of(name: str) -> str:
    """The flag of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def _sentence(condition: AppliesWith) -> str:
    words = condition.described(flag_of)
    return f" Applies {words if words.startswith('without') else f'with {words}'}."


def _with_metadata(default: Any, metadata: Mapping[str, Any]) -> Any:
    """A field with the same default, which may be a field already."""
    if isinstance(default, Field):
        return field(default=default.default, default_factory=default.default_factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@lru_cache
def _docstrings(module_name: str) -> dict[str, dict[str, str]]:
    """The string that follows each annotated field, by the names of a module's classes and their fields."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module_name]))
    except OSError:  # No source is there, as in a frozen program: it runs without help texts.
        return {}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: dict(_documented_fields(node)) for node in classes}


def _documented_fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


def check_settings(settings: Any, *, named: Callable[[str], str] = str) -> None:
    """Refuses values of another type than declared, outside the choices, or outside the range.

    Args:
        settings: a dataclass; the dataclasses among its fields are checked too.
        named: a field's name to what messages call it, such as its flag.

    Raises:
        ValueError: one line that names the setting, what it must be and what it was.
    """
    for name, hint in _hints(type(settings)).items():
        value, (hint, rules) = getattr(settings, name), _unwrapped(hint)
        if not _fits(value, hint):
            advice = "use one of these" if get_origin(hint) is Literal else "give a value of that type"
            raise ValueError(f"{named(name)} must be {described_type(hint)}, got {value!r}: {advice}")
        numbers = value if isinstance(value, tuple) else (value,)
        for allowed in (rule for rule in rules if isinstance(rule, Range)):
            for number in numbers:
                if number is not None and number not in allowed:
                    raise ValueError(f"{named(name)} must be {allowed}, got {number}: choose another number")
        if is_dataclass(hint):
            check_settings(value, named=named)


def check_settings_are_used(settings: Any, *, before: Any = None, named: Callable[[str], str] = str) -> None:
    """Refuses a setting that was given and has no effect.

    Args:
        settings: a dataclass, whose fields may be dataclasses, as it was changed.
        before: the same before it was changed, by default with all defaults. A setting that is as it was there, or as
            it is by default, counts as not given.
        named: a field's name to what messages call it, such as its flag.

    Raises:
        ValueError: one line that names the setting, the other that leaves it without effect and what to do.
    """
    usual = defaults_of(type(settings))
    given, earlier = values_of(settings), usual if before is None else values_of(before)
    for name, conditions in rules_of(type(settings), AppliesWith).items():
        if given[name] in (earlier[name], usual[name]):
            continue
        for condition in conditions:
            other = condition.unmet(given)
            if other is not None:
                value = given[other]
                state = f"without {named(other)}" if value is None else f"with {named(other)} {_written(value)}"
                raise ValueError(
                    f"{named(name)} must be left out {state}, where it has no effect, got {_written(given[name])}: "
                    f"leave it out, or {condition.remedy(other, named(other))}"
                )


def _written(value: Any) -> str:
    """A value as a user writes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def defaults_of(settings: type) -> dict[str, Any]:
    """The default of each field of a dataclass, and of the dataclasses among them in their place, by name.

    A field that must be given has the default `dataclasses.MISSING`.
    """
    defaults: dict[str, Any] = {}
    for each in fields(settings):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        part = _unwrapped(_hints(settings)[each.name])[0]
        if default is MISSING and is_dataclass(part):
            defaults |= defaults_of(cast(type, part))
        else:
            defaults |= values_of(default) if is_dataclass(default) else {each.name: default}
    return defaults


def values_of(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass, and of the dataclasses among them in their place, by name."""
    values: dict[str, Any] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        values |= values_of(value) if is_dataclass(value) else {each.name: value}
    return values


class Declaration(NamedTuple):
    """The type of a setting, the rules that it is annotated with, and its docstring."""

    type: Any
    rules: tuple[Any, ...]
    help: str


def declarations(settings: type) -> dict[str, Declaration]:
    """The declaration of each field of a class, and of the dataclasses among them in their place, by name."""
    found: dict[str, Declaration] = {}
    for name, annotated in _hints(settings).items():
        hint, rules = _unwrapped(annotated)
        if isinstance(hint, type) and is_dataclass(hint):
            found |= declarations(hint)
        else:
            metadata = settings.__dataclass_fields__[name].metadata if is_dataclass(settings) else {}
            found[name] = Declaration(hint, rules, metadata.get("docstring", ""))
    return found


def rules_of(settings: type, kind: type) -> dict[str, list[Any]]:
    """The rules of one kind that each field of a class is annotated with, by the name of those that have any."""
    found = {
        name: [rule for rule in declared.rules if isinstance(rule, kind)]
        for name, declared in declarations(settings).items()
    }
    return {name: rules for name, rules in found.items() if rules}


@lru_cache
def _hints(settings: type) -> dict[str, Any]:
    return get_type_hints(settings, include_extras=True)


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
    return hint is Any or isinstance(value, hint)


def described_type(hint: Any) -> str:
    """The values of a type, as a message names them: the choices of a Literal, else the type itself."""
    if get_origin(hint) is Literal:
        return _either(get_args(hint))
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def _either(values: tuple[Any, ...]) -> str:
    """The values with an "or" before the last."""
    *others, last = values
    return f"{', '.join(map(str, others))}{' or ' if others else ''}{last}"
