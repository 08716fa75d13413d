"""The flags of a command, read off the fields of its class, as tyro names them."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import tyro

from vae_jax.settings import declarations, flag_of

NUMBERS = {int: "whole number", float: "number"}

FLAGLESS = (tyro.conf.Positional, tyro.conf.Suppress)


def flags_of(command: type) -> dict[str, str | None]:
    """The flags of a command, and what each must be: None where anything goes."""
    return {
        flag_of(name): _expected(declared.type)
        for name, declared in declarations(command).items()
        if not any(rule is flagless for rule in declared.rules for flagless in FLAGLESS)
    }


def _expected(hint: Any) -> str | None:
    """A description of the values of a type, or None for a type that takes any word."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    options = [option for option in options if option is not type(None)]
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
