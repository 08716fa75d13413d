"""Two estimators of one gradient compared under common random numbers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from scipy.stats import norm

from vae_jax.problems import Problem
from vae_jax.statistics import CONFIDENCE, mean_se
from vae_jax.studies.study_plan import StudyPlan, plan_study
from vae_jax.studies.variance_rows import VarianceRow, is_rounding
from vae_jax.studies.variance_study import VarianceStudy, measure
from vae_jax.typing import PRNGKey


class VarianceRatio(NamedTuple):
    """The variance of one estimate over that of another."""

    ratio: float
    lower: float
    """End of the confidence interval."""
    upper: float
    correlation: float
    """Correlation of the two estimates over the replicates."""


def variance_ratio(
    first: Float[np.ndarray, " R"], second: Float[np.ndarray, " R"], *, confidence: float = CONFIDENCE
) -> VarianceRatio:
    """The ratio of the variances of two estimates that were made together, with an interval for it.

    The logarithm of a sample variance moves with a replicate x by ((x - mean)^2 / variance - 1) / R. The standard error
    of the ratio's logarithm is that of the difference of both, replicate by replicate, so that what common random
    numbers share cancels. It holds for many replicates, and not where the tails are so heavy that the fourth moment
    cannot be measured.

    Args:
        first, second: replicates, r of the one paired with r of the other.
        confidence: of the interval.

    Returns:
        NaN throughout if a replicate is not finite, and a ratio without an interval if a variance is zero.

    Raises:
        ValueError: fewer than 3 replicates.

    Reference: Efron & Tibshirani (1993), section 6.2, for the influence of a replicate.
    """
    if len(first) < 3:
        raise ValueError(f"replicates must be at least 3, got {len(first)}: make more")
    deviations = [each - each.mean() for each in (np.asarray(first, float), np.asarray(second, float))]
    variances = [(each**2).sum() / (len(each) - 1) for each in deviations]
    if not all(map(math.isfinite, variances)):
        return VarianceRatio(math.nan, math.nan, math.nan, math.nan)
    if min(variances) == 0:
        return VarianceRatio(_quotient(*variances), math.nan, math.nan, math.nan)
    influences = [each**2 / variance for each, variance in zip(deviations, variances, strict=True)]
    error = mean_se(influences[0] - influences[1])
    ratio = variances[0] / variances[1]
    reach = math.exp(norm.isf((1 - confidence) / 2) * error)
    correlation = (deviations[0] * deviations[1]).sum() / (len(first) - 1) / math.sqrt(variances[0] * variances[1])
    return VarianceRatio(ratio, ratio / reach, ratio * reach, float(correlation))


def _quotient(above: float, below: float) -> float:
    return above / below if below else (math.nan if above == 0 else math.inf)


@dataclass(frozen=True)
class ComparisonRow:
    """Two estimators of one parameter's gradient (or of the value) at one number of samples."""

    problem: str
    first: str
    second: str
    parameter: str
    num_samples: int
    num_replicates: int
    variance_ratio: float
    """Variance of the first over that of the second."""
    variance_ratio_lower: float
    variance_ratio_upper: float
    """Ends of the interval, of confidence `CONFIDENCE`."""
    exact_variance_ratio: float | None
    mean_difference: float
    """First less second: both means are the same where both are unbiased."""
    mean_difference_se: float
    correlation: float
    evaluations_ratio: float
    seconds_ratio: float
    variance_seconds_ratio: float
    """Ratio of variance times time: below 1 the first gives the smaller error for the same time."""
    reliable: bool
    """Both rows of the study are."""


@dataclass(frozen=True)
class Comparison:
    """Rows, and the study that they compare."""

    rows: list[ComparisonRow]
    study: VarianceStudy


def compare(
    problem: Problem,
    params: Mapping[str, Any],
    key: PRNGKey,
    num_replicates: int,
    *,
    first: str,
    second: str,
    num_samples: Sequence[int],
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Comparison:
    """The ratio of two estimators' variances for the value and every parameter, under common random numbers.

    Args:
        problem, params, key, num_replicates, num_samples, mesh, on_progress: as for `study_variance`.
        first: name of the estimator whose variance stands above.
        second: the one below.

    Raises:
        ValueError: as `plan_comparison`.
    """
    plan = plan_comparison(problem, params, num_replicates, first=first, second=second, num_samples=num_samples)
    return comparison_of(measure(plan, key, mesh=mesh, on_progress=on_progress))


def plan_comparison(
    problem: Problem,
    params: Mapping[str, Any],
    num_replicates: int,
    *,
    first: str,
    second: str,
    num_samples: Sequence[int],
) -> StudyPlan:
    """Validates the comparison of two estimators; `measure` and then `comparison_of` carry it out.

    Arguments as for `compare`.

    Raises:
        ValueError: as `plan_study`, or twice the same estimator.
    """
    if first == second:
        raise ValueError(f"the estimators must be two, got {first} twice: name another")
    return plan_study(problem, params, num_replicates, estimators=(first, second), num_samples=num_samples)


def comparison_of(study: VarianceStudy) -> Comparison:
    """The first estimator of a study over the second, for the value and every parameter at every number of samples."""
    first, second, *_ = study.estimators
    rows = [
        _row(study, *(study.row(name, parameter, size) for name in (first, second)))
        for parameter in study.parameters
        for size in study.num_samples
    ]
    return Comparison(rows, study)


def _row(study: VarianceStudy, above: VarianceRow, below: VarianceRow) -> ComparisonRow:
    pair = [study.replicates_of(row.estimator, row.parameter, row.num_samples).astype(float) for row in (above, below)]
    ratio = VarianceRatio(math.nan, math.nan, math.nan, math.nan)
    # The ratio of two roundings says nothing.
    if not (is_rounding(above) and is_rounding(below)):
        ratio = variance_ratio(*pair)
    differences = pair[0] - pair[1]
    exact = None
    if above.exact_std is not None and below.exact_std:
        exact = (above.exact_std / below.exact_std) ** 2
    seconds_ratio = above.seconds_per_estimate / below.seconds_per_estimate
    return ComparisonRow(
        problem=above.problem,
        first=above.estimator,
        second=below.estimator,
        parameter=above.parameter,
        num_samples=above.num_samples,
        num_replicates=above.num_replicates,
        variance_ratio=ratio.ratio,
        variance_ratio_lower=ratio.lower,
        variance_ratio_upper=ratio.upper,
        exact_variance_ratio=exact,
        mean_difference=float(differences.mean()),
        mean_difference_se=float(mean_se(differences)),
        correlation=ratio.correlation,
        evaluations_ratio=above.num_evaluations / below.num_evaluations,
        seconds_ratio=seconds_ratio,
        variance_seconds_ratio=ratio.ratio * seconds_ratio,
        reliable=above.reliable and below.reliable,
    )
