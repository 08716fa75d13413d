"""Log densities as arguments of compiled programs."""

from collections.abc import Callable
from typing import Any

from jax.tree_util import Partial


def as_partial(function: Callable[..., Any]) -> Partial:
    """A log density as an argument of a compiled program, which is compiled once for the same function.

    What a function closes over is read in its first call. The arrays of a `jax.tree_util.Partial` are arguments of the
    program, and may change from call to call.
    """
    return function if isinstance(function, Partial) else Partial(function)
