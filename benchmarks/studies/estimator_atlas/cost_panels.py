"""The costs whose gradients' variances are compared, each over values of its parameter."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from vae_jax.problems import CosineCost, ExponentialCost, SquareCost
from vae_jax.problems.gaussian_costs.gaussian_cost import GaussianCost


@dataclass(frozen=True)
class Panel:
    """One cost, and the values of its parameter k."""

    problem: GaussianCost
    parameter: str
    title: str
    cost: Callable[[Any, Any], Any]
    """Maps z and k to f(z). The compiled programs take k as an argument, so that one serves all of its values."""
    spaced: Callable[[int], np.ndarray]
    """Maps a number of values to the values."""
    scale: str

    def problem_at(self, k: float) -> GaussianCost:
        """The cost at one value of k."""
        return replace(self.problem, **{self.parameter: float(k)})


PANELS = (
    Panel(
        SquareCost(), "target", "$f(z) = (z - k)^2$",
        lambda z, k: (z - k) ** 2, functools.partial(np.linspace, -3, 3), "linear",
    ),
    Panel(
        CosineCost(), "frequency", r"$f(z) = \cos(k z)$",
        lambda z, k: jnp.cos(k * z), functools.partial(np.linspace, 0.5, 5), "linear",
    ),
    Panel(
        ExponentialCost(), "rate", "$f(z) = \\exp(-k z^2)$",
        lambda z, k: jnp.exp(-k * z**2), functools.partial(np.geomspace, 0.1, 10), "log",
    ),
)  # fmt: skip
