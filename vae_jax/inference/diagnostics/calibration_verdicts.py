"""Verdicts on posteriors, from the probabilities that they give to the truth."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import chi2, norm, t

from vae_jax.inference.diagnostics.rank_tests import holm_adjusted, symmetry_p_value, uniformity_p_value
from vae_jax.statistics import mean_se


class ParameterCalibration(NamedTuple):
    """One parameter's true values compared with their posteriors.

    Normal scores are the normal quantiles of the probabilities: for a Gaussian posterior the distance of the truth from
    the mean, in standard deviations of the posterior.
    """

    name: str
    shift: float
    """Mean normal score: above zero where the posteriors are too low. Zero if calibrated."""
    shift_se: float
    dispersion: float
    """Standard deviation of the normal scores: above one where the posteriors are too narrow, by about this factor."""
    dispersion_se: float
    symmetry_p_value: float
    """The p-value of probabilities symmetric about one half, corrected: see `Calibration`."""
    uniformity_p_value: float
    """The p-value of probabilities that are uniform, corrected."""
    verdict: str
    """"no fault found", "too low", "too high", "too narrow", "too wide", "misshapen" for any other fault, or
    "not finite". A bias and a wrong width are joined, as in "too low and too narrow"."""


class Calibration(NamedTuple):
    """Result of `calibration`: probabilities that posteriors give to values below the truth, and verdicts."""

    parameters: tuple[ParameterCalibration, ...]
    probabilities: Float[np.ndarray, "R P"]
    """Probabilities of each replicate and parameter; NaN where the inference failed."""
    level: float
    """Probability of finding any fault at all if there is none, over both tests of all parameters."""

    @property
    def is_calibrated(self) -> bool:
        """Whether no fault was found. With few replicates that says little."""
        return all(parameter.verdict == "no fault found" for parameter in self.parameters)


def judge(names: tuple[str, ...], probabilities: Float[np.ndarray, "R P"], level: float) -> Calibration:
    """Tests every parameter's probabilities, and says what is wrong with those that fail."""
    columns = probabilities.T
    p_values = [symmetry_p_value(column) for column in columns] + [uniformity_p_value(column) for column in columns]
    symmetry, uniformity = holm_adjusted(np.array(p_values)).reshape(2, -1).tolist()
    parameters = tuple(
        _judge_one(name, column, adjusted, (level, level / len(names)))
        for name, column, *adjusted in zip(names, columns, symmetry, uniformity, strict=True)
    )
    return Calibration(parameters, probabilities, level)


def _judge_one(
    name: str, probabilities: Float[np.ndarray, " R"], p_values: list[float], levels: tuple[float, float]
) -> ParameterCalibration:
    """The verdict from corrected p-values at the first level; the second is for those that are not corrected."""
    scores = norm.ppf(probabilities)
    size, shift, dispersion = len(scores), float(scores.mean()), float(scores.std(ddof=1))
    kurtosis = np.mean((scores - shift) ** 4) / dispersion**4
    is_asymmetric, is_not_uniform = (p_value < levels[0] for p_value in p_values)
    if not np.isfinite(probabilities).all():
        verdict = "not finite"
    elif is_asymmetric or is_not_uniform:
        verdict = _fault(scores, levels[1], is_asymmetric=is_asymmetric)
    else:
        verdict = "no fault found"
    return ParameterCalibration(
        name=name,
        shift=shift,
        shift_se=float(mean_se(scores)),
        dispersion=dispersion,
        dispersion_se=float(dispersion * np.sqrt(np.maximum(kurtosis - 1, 0) / (4 * size))),
        symmetry_p_value=p_values[0],
        uniformity_p_value=p_values[1],
        verdict=verdict,
    )


def _fault(scores: Float[np.ndarray, " R"], level: float, *, is_asymmetric: bool) -> str:
    """The fault that makes normal scores other than standard normal."""
    freedom, t_score = len(scores) - 1, scores.mean() / mean_se(scores)
    direction = "too low" if t_score > 0 else "too high"
    faults = [direction] if is_asymmetric else []
    # The variance of standard normal scores is a chi-square over its degrees of freedom.
    sum_of_squares = freedom * scores.var(ddof=1)
    if chi2.sf(sum_of_squares, freedom) < level / 2:
        faults.append("too narrow")
    if chi2.cdf(sum_of_squares, freedom) < level / 2:
        faults.append("too wide")
    is_shifted = 2 * t.sf(abs(t_score), freedom) < level
    return " and ".join(faults) or (direction if is_shifted else "misshapen")
