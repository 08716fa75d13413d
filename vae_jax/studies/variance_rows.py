"""The rows of a variance study: an estimator's measured moments, the exact ones, and whether they can be trusted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from vae_jax.estimators import REGISTRY
from vae_jax.problems import ExactMoments
from vae_jax.statistics import ROUNDING, Statistics
from vae_jax.studies.estimator_losses import work_of
from vae_jax.studies.study_plan import StudyPlan

RELIABLE_STD_ERROR = 0.1
"""Relative standard error of a standard deviation from which on it is called unreliable."""

BELIEVABLE_STD_ERROR = 0.5
"""Share of the exact standard error of a standard deviation below which a measured one is not believed."""


MEASURED = ("num_nonfinite", "mean", "mean_se", "std", "std_se")
TAIL = ("tail_index", "tail_index_lower", "tail_index_upper", "reliable")
"""Fields of `Statistics` that fewer than four replicates leave out."""


@dataclass(frozen=True)
class VarianceRow:
    """One parameter's gradient (or the value) under one estimator at one number of samples.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem, params = vj.problems.BernoulliCost(), {"logit": 1.0}
        >>> study = vj.study_variance(problem, params, jax.random.key(0), 1000, estimators=["disarm"], num_samples=[4])
        >>> row = study.row("disarm", "logit", 4)
        >>> row.num_evaluations, row.exact_std_status, row.reliable
        (4, 'finite', True)
        >>> abs(row.std - row.exact_std) < 5 * row.exact_std_se
        True
    """

    problem: str
    estimator: str
    parameter: str
    num_samples: int
    num_replicates: int
    num_nonfinite: int
    mean: float
    mean_se: float
    std: float
    std_se: float
    exact_mean: float | None
    exact_mean_status: str
    exact_std: float | None
    exact_std_status: str
    exact_std_se: float | None
    """The true standard error of std, where it is known."""
    z_score: float | None
    """(mean - exact_mean) / mean_se, where neither the exact nor the measured standard deviation is rounding alone. The
    error counts as 16 units in the last place of the means at least."""
    tail_index: float | None
    """None where there are fewer than four replicates."""
    tail_index_lower: float | None
    tail_index_upper: float | None
    """Ends of the 95% interval of the tail index, as in `Statistics`."""
    reliable: bool
    """The exact moments are finite or unknown, no replicate is NaN or infinite, and the standard error of std is small
    and believable: it and the exact one are under a tenth of std, and it is at least half of the exact one. Where the
    exact one is unknown, `Statistics.reliable` decides instead of it."""
    num_evaluations: int
    """Evaluations of the objective for one estimate."""
    seconds: float
    """Time of the pass that made this row, compilation aside. One pass makes all rows of an estimator."""
    seconds_per_estimate: float
    """The row's share of that pass, by its evaluations, for one estimate of all parameters. It is an indication only:
    passes are not interleaved, and time that does not grow with the evaluations is shared out in the same way."""
    variance_seconds: float
    """std^2 times seconds_per_estimate: the time that an average of estimates takes to reach a given error."""


def variance_rows(plan: StudyPlan, statistics: Statistics, seconds: Sequence[float]) -> Iterator[VarianceRow]:
    """A row for each cell of the plan, by estimator, then parameter, then number of samples.

    Args:
        plan: the study.
        statistics: statistics of the replicates, each [E, N, P].
        seconds: the seconds that each estimator's pass took.
    """
    table = {field: np.asarray(getattr(statistics, field), float) for field in MEASURED}
    tails = {field: np.asarray(values) for field in TAIL if (values := getattr(statistics, field)) is not None}
    for i, estimator in enumerate(plan.estimators):
        exact = plan.problem.exact(plan.params, estimator)
        evaluations = _evaluations(plan, estimator)
        for k, parameter in enumerate(plan.parameters):
            for j, size in enumerate(plan.num_samples):
                measured = {field: float(values[i, j, k]) for field, values in table.items()}
                tail = {field: float(values[i, j, k]) for field, values in tails.items()}
                moments = exact(size)[parameter]
                exact_std_se = moments.std_se(plan.num_replicates)
                each = seconds[i] / plan.num_replicates * evaluations[size] / sum(evaluations.values())
                yield VarianceRow(
                    problem=plan.problem.name,
                    estimator=estimator,
                    parameter=parameter,
                    num_samples=size,
                    num_replicates=plan.num_replicates,
                    num_nonfinite=int(measured.pop("num_nonfinite")),
                    exact_mean=moments.mean.value,
                    exact_mean_status=moments.mean.status,
                    exact_std=moments.std.value,
                    exact_std_status=moments.std.status,
                    exact_std_se=exact_std_se,
                    z_score=_z_score(measured["mean"], measured["mean_se"], measured["std"], moments),
                    tail_index=tail.get("tail_index"),
                    tail_index_lower=tail.get("tail_index_lower"),
                    tail_index_upper=tail.get("tail_index_upper"),
                    reliable=_reliable(
                        measured["std"], measured["std_se"], exact_std_se, moments, tail.get("reliable") == 1
                    ),
                    num_evaluations=evaluations[size],
                    seconds=seconds[i],
                    seconds_per_estimate=each,
                    variance_seconds=measured["std"] ** 2 * each,
                    **measured,
                )


def _evaluations(plan: StudyPlan, estimator: str) -> dict[int, int]:
    """Evaluations of the objective for one estimate, by the number of samples."""
    count = REGISTRY[estimator].evaluations.number
    return {size: count(work_of(plan.problem, plan.params, size)) for size in plan.num_samples}


def _z_score(mean: float, mean_se: float, std: float, exact: ExactMoments) -> float | None:
    # What has no variance has an error by rounding alone, whose size its replicates do not tell.
    if exact.mean.value is None or exact.std.value == 0 or _is_rounding(mean, std, exact.std.value):
        return None
    error = max(mean_se, _rounding() * max(abs(mean), abs(exact.mean.value)))
    return None if error == 0 else (mean - exact.mean.value) / error


def is_rounding(row: VarianceRow) -> bool:
    """Whether all the variance that was measured comes from the arithmetic."""
    return _is_rounding(row.mean, row.std, row.exact_std)


def _is_rounding(mean: float, std: float, exact_std: float | None) -> bool:
    return std <= _rounding() * max(abs(mean), 1.0) and (exact_std is None or exact_std <= _rounding())


def _rounding() -> float:
    return ROUNDING * float(jnp.finfo(jnp.result_type(float)).eps)


def _reliable(std: float, std_se: float, exact_std_se: float | None, exact: ExactMoments, is_measured: bool) -> bool:
    # Every comparison with NaN is false, so that a replicate that is not finite makes the row unreliable.
    if exact.std.value == 0:
        return True
    known = std_se if exact_std_se is None else exact_std_se
    believable = is_measured if exact_std_se is None else std_se >= BELIEVABLE_STD_ERROR * known
    small = max(std_se, known) < RELIABLE_STD_ERROR * std
    return {exact.mean.status, exact.std.status} <= {"finite", "unknown"} and small and believable
