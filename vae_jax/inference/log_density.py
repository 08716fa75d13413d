"""Log densities as compiled programs take them."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import Partial


def as_partial(function: Callable[..., Any]) -> Partial:
    """A function as a pytree, whose arrays, if it has any, are passed to compiled programs as arguments."""
    return function if isinstance(function, Partial) else Partial(function)
