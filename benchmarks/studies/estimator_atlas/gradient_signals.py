"""The signal-to-noise ratio of the importance-weighted bound's gradients, measured."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.studies.estimator_atlas.linear_gaussian_bound import PARAMS, estimated_bound, exact_means
from vae_jax import bounds
from vae_jax.statistics import gradient_replicates, mean_se
from vae_jax.typing import PRNGKey, Scalar


class GradientContender(NamedTuple):
    """A gradient of the bound, and its known slope."""

    gradient: bounds.MultiSampleBound
    slope_in_k: float
    """Slope for q's parameters, on logarithmic axes. Vimco's noise is, as plain's, a weighted mean of scores."""
    most_samples: int
    bounds_share: float
    """The number of bounds as a share of the replicates."""


# A fainter signal needs more bounds; but vimco takes as long for one as the others for dozens.
GRADIENTS = {
    "plain": GradientContender(bounds.plain, -0.5, 1024, 4.0),
    "vimco": GradientContender(bounds.vimco, -0.5, 256, 1 / 4),
    "doubly_reparameterized": GradientContender(bounds.doubly_reparameterized, 0.5, 1024, 1.0),
}

SAMPLES_OF_AVERAGED = 16
"""The K of the bounds that are averaged."""

SIDES = {"loc": "inference", "scale": "inference", "prior_loc": "model"}
"""The parameters of q and one of the model."""


class Signal(NamedTuple):
    """The mean of a gradient over the standard deviation of one."""

    gradient: str
    parameter: str
    num_samples: int
    """K."""
    num_averaged: int
    """M."""
    signal_to_noise: float
    log_se: float
    """Standard error of its logarithm."""
    mean: float
    mean_se: float
    exact_mean: float
    known_signal: float
    """The ratio with the exact mean in the place of the measured one."""
    known_signal_log_se: float


def measured_signals(
    key: PRNGKey, num_bounds: int, sample_numbers: Sequence[int], averaged_numbers: Sequence[int]
) -> list[Signal]:
    """Measures every gradient at every K with M = 1, and at every M with one K."""
    cases = [(num_samples, 1) for num_samples in sample_numbers]
    cases += [(SAMPLES_OF_AVERAGED, num_averaged) for num_averaged in averaged_numbers if num_averaged > 1]
    exact = {num_samples: exact_means(num_samples) for num_samples, _ in cases}
    signals = []
    for place, name in enumerate(GRADIENTS):
        keys = [jax.random.fold_in(key, 100 * place + number) for number in range(len(cases))]
        signals += _signals_of(name, keys, cases, exact, num_bounds)
    return signals


def _signals_of(
    name: str,
    keys: Sequence[PRNGKey],
    cases: Sequence[tuple[int, int]],
    exact: Mapping[int, Mapping[str, float]],
    num_bounds: int,
) -> list[Signal]:
    contender = GRADIENTS[name]
    # One function object for each K, so that each is compiled once.
    losses = {
        num_samples: functools.partial(estimated_bound, gradient=contender.gradient, num_samples=num_samples)
        for num_samples in exact
    }
    signals = []
    for key, (num_samples, num_averaged) in zip(keys, cases, strict=True):
        if num_samples > contender.most_samples:
            continue
        draws = _draws(losses[num_samples], key, int(num_bounds * contender.bounds_share))
        for parameter, values in draws.items():
            averages = values.reshape(-1, num_averaged).mean(axis=1)
            where = (name, parameter, num_samples, num_averaged)
            signals.append(Signal(*where, *_signal_to_noise(averages, exact[num_samples][parameter])))
    return signals


def _draws(loss: Callable[..., Scalar], key: PRNGKey, num_bounds: int) -> dict[str, np.ndarray]:
    """Gradients of single bounds, by parameter."""
    params = {name: jnp.asarray(value) for name, value in PARAMS.items()}
    _, replicates = gradient_replicates(loss, params, key, num_bounds)
    return {name: np.asarray(values, float) for name, values in replicates.items()}


def _signal_to_noise(values: np.ndarray, exact_mean: float) -> tuple[float, ...]:
    """The fields of `Signal` after where it was measured. Standard errors are by the delta method."""
    mean, std, root = float(values.mean()), float(values.std(ddof=1)), math.sqrt(len(values))
    deviations = values - mean
    of_log_std = ((deviations / std) ** 2 - 1) / 2
    log_se = (deviations / mean - of_log_std).std() / root
    known = abs(exact_mean) / std, float(of_log_std.std() / root)
    return abs(mean) / std, float(log_se), mean, float(mean_se(values)), exact_mean, *known


def along(signals: Sequence[Signal], size: str) -> list[Signal]:
    """The signals that differ in one size, K or M."""
    if size == "K":
        return [signal for signal in signals if signal.num_averaged == 1]
    return [signal for signal in signals if signal.num_samples == SAMPLES_OF_AVERAGED]


def sizes_of(signals: Sequence[Signal], size: str) -> np.ndarray:
    """The K or the M of the signals."""
    return np.array([signal.num_samples if size == "K" else signal.num_averaged for signal in signals], float)


def slope_in_theory(gradient: str, parameter: str, size: str) -> float:
    """Slope of log signal-to-noise against log K or log M: 1/2 except for q's parameters in K."""
    is_of_q_in_k = size == "K" and SIDES[parameter] == "inference"
    return GRADIENTS[gradient].slope_in_k if is_of_q_in_k else 0.5
