"""Temperatures from 0, where annealing starts, to 1, where it ends."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

Temperatures = Float[np.ndarray, " T"]

Schedule: TypeAlias = Callable[[int], Temperatures]
"""The number of temperatures, both ends included, to them in rising order."""

SIGMOID_STEEPNESS = 4.0
"""The sigmoid's ends are at sigmoid(-4) and sigmoid(4)."""

LOWEST_POSITIVE = 1e-4
"""The lowest positive temperature of the geometric schedule."""


def linear(num_temperatures: int) -> Temperatures:
    """Temperatures from 0 to 1 in equal steps.

    Args:
        num_temperatures: T, both ends included.

    Returns:
        The temperatures [T].

    Example:
        >>> from vae_jax.inference.evidence import linear
        >>> linear(5).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    return np.linspace(0, 1, num_temperatures)


def sigmoid(num_temperatures: int) -> Temperatures:
    """Temperatures from 0 to 1 with short steps at both ends, where the density changes most.

    Args:
        num_temperatures: T, both ends included.

    Returns:
        The temperatures [T].

    Example:
        >>> from vae_jax.inference.evidence import sigmoid
        >>> sigmoid(5).round(3).tolist()
        [0.0, 0.105, 0.5, 0.895, 1.0]

    Reference: Wu, Burda, Salakhutdinov & Grosse (2017).
    """
    curve = 1 / (1 + np.exp(-SIGMOID_STEEPNESS * np.linspace(-1, 1, num_temperatures)))
    return _with_exact_ends((curve - curve[0]) / (curve[-1] - curve[0]))


def geometric(num_temperatures: int) -> Temperatures:
    """Temperature 0, then temperatures in equal ratios from 1e-4 to 1, for a start much wider than the posterior.

    Args:
        num_temperatures: T, both ends included.

    Returns:
        The temperatures [T].

    Example:
        >>> from vae_jax.inference.evidence import geometric
        >>> geometric(6).round(6).tolist()
        [0.0, 0.0001, 0.001, 0.01, 0.1, 1.0]

    Reference: Neal (2001).
    """
    return _with_exact_ends(np.concatenate([[0.0], np.geomspace(LOWEST_POSITIVE, 1, num_temperatures - 1)]))


def _with_exact_ends(temperatures: Temperatures) -> Temperatures:
    temperatures[0], temperatures[-1] = 0, 1
    return temperatures


SCHEDULES: Mapping[str, Schedule] = {"linear": linear, "sigmoid": sigmoid, "geometric": geometric}
"""Schedules by the names that commands use."""


def temperatures_of(schedule: Schedule, num_temperatures: int) -> Temperatures:
    """The temperatures, checked.

    Raises:
        ValueError: fewer than 2, or temperatures that do not rise from 0 to 1.
    """
    if num_temperatures < 2:
        raise ValueError(f"num_temperatures must be at least 2, got {num_temperatures}: both ends are of them")
    temperatures = np.asarray(schedule(num_temperatures), float)
    ends_well = temperatures.shape == (num_temperatures,) and temperatures[0] == 0 and temperatures[-1] == 1
    if not ends_well or not (np.diff(temperatures) > 0).all():
        raise ValueError(f"schedule must give {num_temperatures} temperatures rising from 0 to 1, got {temperatures}")
    return temperatures
