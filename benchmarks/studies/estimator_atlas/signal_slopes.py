"""Slopes of the signal-to-noise ratio in the samples of a bound and in the bounds averaged."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.studies.estimator_atlas.gradient_signals import (
    GRADIENTS,
    SIDES,
    Signal,
    along,
    sizes_of,
    slope_in_theory,
)


class Slope(NamedTuple):
    """The slope of log signal-to-noise against a log size."""

    gradient: str
    parameter: str
    size: str
    slope: float
    slope_se: float
    """Too small where measured means lie within a few standard errors of zero: their logarithms are skewed."""
    known_signal_slope: float
    """The slope with the exact means in the place of the measured ones."""
    known_signal_slope_se: float
    theory: float


def fitted_slopes(signals: Sequence[Signal], least_fitted: int) -> list[Slope]:
    """Fits a slope in K, from the least fitted one on, and one in M, for every gradient and parameter."""
    slopes = []
    for gradient in GRADIENTS:
        for parameter in SIDES:
            chosen = [signal for signal in signals if (signal.gradient, signal.parameter) == (gradient, parameter)]
            late = [signal for signal in along(chosen, "K") if signal.num_samples >= least_fitted]
            for size, fitted in (("K", late), ("M", along(chosen, "M"))):
                theory = slope_in_theory(gradient, parameter, size)
                slopes.append(Slope(gradient, parameter, size, *_fitted_pair(fitted, size), theory))
    return slopes


def _fitted_pair(signals: Sequence[Signal], size: str) -> tuple[float, float, float, float]:
    """Slope and standard error, with measured and with exact means."""
    sizes = sizes_of(signals, size)
    # In K the next order is 1/K.
    columns = [1 / sizes] if size == "K" else []
    design = np.stack([np.log(sizes), np.ones_like(sizes), *columns], axis=1)
    measured = fitted_slope(design, *np.array([(signal.signal_to_noise, signal.log_se) for signal in signals]).T)
    known = fitted_slope(design, *np.array([(signal.known_signal, signal.known_signal_log_se) for signal in signals]).T)
    return *measured, *known


def fitted_slope(design: np.ndarray, ratios: np.ndarray, log_errors: np.ndarray) -> tuple[float, float]:
    """The first coefficient of log ratios and its standard error, by weighted least squares."""
    weighted = design / log_errors[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    return float((covariance @ weighted.T @ (np.log(ratios) / log_errors))[0]), float(math.sqrt(covariance[0, 0]))
