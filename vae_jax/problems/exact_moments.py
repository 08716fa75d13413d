"""Exact moments of an estimate and of its gradient, as functions of the number of samples."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from vae_jax.problems.central_moments import CentralMoments, MomentsOf, Values

Status = Literal["finite", "infinite", "undefined", "unknown"]


class Exact(NamedTuple):
    """An exact quantity, or the reason that it has no number.

    Example:
        >>> import vae_jax as vj
        >>> problem, params = vj.problems.SquareCost(), {"loc": 1.0, "scale": 1.0}
        >>> problem.exact(params, "pathwise")(1)["loc"].mean.status
        'finite'
        >>> problem.exact(params, "score_function+optimal_score")(2)["loc"].std
        Exact(status='unknown', value=None)
    """

    status: Status
    value: float | None = None
    """Set where the status is "finite"."""


class ExactMoments(NamedTuple):
    """Exact mean, standard deviation and kurtosis of one estimate.

    Example:
        >>> import vae_jax as vj
        >>> problem, params = vj.problems.SquareCost(), {"loc": 1.0, "scale": 1.0}
        >>> moments = problem.exact(params, "pathwise")(4)["loc"]  # the mean of 4 times 2 z is Normal(2, 1)
        >>> print(f"{moments.std.value:.2f}, {moments.kurtosis.value:.2f}, {moments.std_se(1000):.3f}")
        1.00, 3.00, 0.022
    """

    mean: Exact
    std: Exact
    kurtosis: Exact
    """E[(x - mean)^4] / std^4, which is 3 for a Gaussian; under leave-one-out to leading order in 1/num_samples."""

    def std_se(self, num_replicates: int) -> float | None:
        """The true standard error of a standard deviation measured over replicates; None if it is not finite.

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

MomentsOfSamples: TypeAlias = Callable[[int], ExactMoments]
"""The moments of an estimate as a function of its number of samples."""

MomentsByParameter: TypeAlias = Callable[[int], dict[str, ExactMoments]]
"""The moments of the value and of each parameter's gradient, by name, as a function of the number of samples."""


def moments_by_parameter(moments: Mapping[str, MomentsOfSamples]) -> MomentsByParameter:
    """The moments of the value and of every parameter's gradient, as one function of the number of samples."""
    return lambda num_samples: {name: of_samples(num_samples) for name, of_samples in moments.items()}


def mean_alone(mean: float) -> MomentsOfSamples:
    """Moments of an unbiased estimate of which only the mean is known."""
    return constant(ExactMoments(Exact("finite", mean), UNKNOWN, UNKNOWN))


def constant(moments: ExactMoments) -> MomentsOfSamples:
    """Moments that do not depend on the number of samples."""
    return lambda num_samples: moments


def averaged(term: CentralMoments) -> MomentsOfSamples:
    """Moments of an average of independent terms, one a sample."""
    return lambda num_samples: _finite(term.mean, term.variance / num_samples, 3 + (term.kurtosis - 3) / num_samples)


def over_pairs(of_pairs: MomentsOfSamples) -> MomentsOfSamples:
    """Moments of an average of antithetic pairs as a function of the number of samples, two a pair."""

    def moments(num_samples: int) -> ExactMoments:
        if num_samples < 2 or num_samples % 2:
            raise ValueError(f"num_samples must be even and at least 2, for antithetic pairs, got {num_samples}")
        return of_pairs(num_samples // 2)

    return moments


def leave_one_out_moments(
    f: Values, score: Values, moments_of: MomentsOf, *, gradient: float | None = None
) -> MomentsOfSamples:
    """Moments of the score-function gradient with the leave-one-out baseline.

    Var = 1/N {E[(f - E f)^2 s^2] - (N - 2)/(N - 1) g^2 + Var(f) E[s^2] / (N - 1)}. The kurtosis is that of its leading
    term, the average of (f - E f) s.

    Args:
        f: the objective.
        score: s, the derivative of log q by the parameter, at the same nodes or outcomes.
        moments_of: the central moments of a function of those.
        gradient: g = E[f s] where it is known better than from the nodes.
    """
    value = moments_of(f)
    centred = moments_of((f - value.mean) * score)
    score_square = moments_of(score**2).mean
    g = centred.mean if gradient is None else gradient

    def moments(num_samples: int) -> ExactMoments:
        if num_samples < 2:
            raise ValueError(f"leave_one_out needs at least 2 samples, got {num_samples}: raise num_samples")
        others = num_samples - 1
        coupling = value.variance * score_square / others
        variance = (centred.mean_square - (others - 1) / others * g**2 + coupling) / num_samples
        return _finite(g, variance, 3 + (centred.kurtosis - 3) / num_samples)

    return moments


def _finite(mean: float, variance: float, kurtosis: float) -> ExactMoments:
    return ExactMoments(*(_known(value) for value in (mean, math.sqrt(variance), kurtosis)))


def _known(value: float) -> Exact:
    """A moment from quadrature in float64: beyond its range it is not known."""
    return Exact("finite", value) if math.isfinite(value) else UNKNOWN
