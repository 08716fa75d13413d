"""What a problem says is true."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

Status = Literal["finite", "infinite", "undefined", "unknown"]


class Exact(NamedTuple):
    """An exact quantity, or why there is no number for it."""

    status: Status
    value: float | None = None
    """Set where the status is "finite"."""


class ExactMoments(NamedTuple):
    """Moments of one estimate."""

    mean: Exact
    std: Exact
    kurtosis: Exact
    """E[(x - mean)^4] / std^4, which is 3 for a Gaussian; under leave-one-out to leading order in 1/num_samples."""

    def std_se(self, num_replicates: int) -> float | None:
        """The standard error that a standard deviation measured over replicates really has; None if not finite.

        std sqrt{[kurtosis - (R - 3)/(R - 1)] / R} / 2. A heavy tail hides it from the replicates themselves: they hold
        none of the rare draws that make it large.
        """
        if self.std.value is None or self.kurtosis.value is None or num_replicates < 2:
            return None
        excess = self.kurtosis.value - (num_replicates - 3) / (num_replicates - 1)
        return self.std.value * math.sqrt(excess / num_replicates) / 2


INFINITE = Exact("infinite")
UNDEFINED = Exact("undefined")
UNKNOWN = Exact("unknown")

MomentsOfSamples = Callable[[int], ExactMoments]
"""The moments of an estimate as a function of its number of samples."""


MomentsByParameter = Callable[[int], dict[str, ExactMoments]]
"""The same of the value and of each parameter's gradient."""


def mean_alone(mean: float) -> MomentsOfSamples:
    """Moments of an unbiased estimate of which no more is known."""
    return constant(ExactMoments(Exact("finite", mean), UNKNOWN, UNKNOWN))


def averaged(mean: float, variance: float, kurtosis: float) -> MomentsOfSamples:
    """Moments of an average of independent terms, from those of one."""
    return lambda num_samples: _finite(mean, variance / num_samples, 3 + (kurtosis - 3) / num_samples)


def leave_one_out_moments(
    *, gradient: float, centred_square: float, centred_kurtosis: float, value_variance: float, score_square: float
) -> MomentsOfSamples:
    """Moments of the score-function gradient with the leave-one-out baseline, of an objective f and a score s.

    Var = 1/N {E[(f - E f)^2 s^2] - (N - 2)/(N - 1) g^2 + Var(f) E[s^2] / (N - 1)}. The kurtosis is that of its leading
    term, the average of (f - E f) s.

    Args:
        gradient: g = E[f s].
        centred_square: E[(f - E f)^2 s^2].
        centred_kurtosis: the kurtosis of (f - E f) s.
        value_variance: Var(f).
        score_square: E[s^2].
    """

    def moments(num_samples: int) -> ExactMoments:
        if num_samples < 2:
            raise ValueError(f"leave_one_out needs at least 2 samples, got {num_samples}: raise num_samples")
        others = num_samples - 1
        coupling = value_variance * score_square / others
        variance = (centred_square - (others - 1) / others * gradient**2 + coupling) / num_samples
        return _finite(gradient, variance, 3 + (centred_kurtosis - 3) / num_samples)

    return moments


def constant(moments: ExactMoments) -> MomentsOfSamples:
    """The same at any number of samples."""
    return lambda num_samples: moments


def _finite(mean: float, variance: float, kurtosis: float) -> ExactMoments:
    return ExactMoments(*(_known(value) for value in (mean, math.sqrt(variance), kurtosis)))


def _known(value: float) -> Exact:
    """What quadrature in float64 can say: a moment beyond its range is not known."""
    return Exact("finite", value) if math.isfinite(value) else UNKNOWN
