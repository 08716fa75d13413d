"""The flags of a command, read off the fields of its class, as tyro names them."""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from vae_jax.cli.options import flag_of

NUMBERS = {int: "whole number", float: "number"}

FLAGLESS = (tyro.conf.Positional, tyro.conf.Suppress)


def flags_of(command: type) -> dict[str, str | None]:
    """The flags of a command, nested options last, and what each must be: None where anything goes."""
    hints = get_type_hints(command, include_extras=True)
    own: dict[str, str | None] = {}
    nested: dict[str, str | None] = {}
    for field in fields(command):
        hint, metadata = _unwrapped(hints[field.name])
        if isinstance(hint, type) and is_dataclass(hint):
            nested |= flags_of(hint)
        elif not any(mark is flagless for mark in metadata for flagless in FLAGLESS):
            own[flag_of(field.name)] = _expected(hint)
    return own | nested


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return (get_args(hint)[0], hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _expected(hint: Any) -> str | None:
    """A description of the values of a type, or None for a type that takes any word."""
    options = [option for option in _options(hint) if option is not type(None)]
    if len(options) != 1:
        return None
    (option,) = options
    parts = get_args(option)
    if get_origin(option) is tuple and parts[0] in NUMBERS:
        count = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        return f"{count}{NUMBERS[parts[0]]}s"
    if get_origin(option) is Literal:
        return f"{'one of ' * (len(parts) > 1)}{', '.join(map(str, parts))}"
    return f"a {NUMBERS[option]}" if option in NUMBERS else None


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
