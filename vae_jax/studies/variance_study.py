"""The value and the gradient of estimators on a problem, measured at several numbers of samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import chex
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from vae_jax.problems import Problem
from vae_jax.statistics import summarize
from vae_jax.studies.replicate_passes import timed_replicates
from vae_jax.studies.study_plan import StudyPlan, plan_study
from vae_jax.studies.variance_rows import VarianceRow, variance_rows
from vae_jax.typing import PRNGKey


@dataclass(frozen=True)
class VarianceStudy:
    """Rows, and the replicates that they summarize."""

    rows: list[VarianceRow]
    replicates: Float[np.ndarray, "R E N P"]
    """num_replicates x estimators x numbers of samples x parameters."""
    estimators: tuple[str, ...]
    num_samples: tuple[int, ...]
    parameters: tuple[str, ...]
    """The problem's name for the value, then those of q's parameters, a vector's by element."""

    @property
    def values_are_shared(self) -> bool:
        """Whether every estimator gave the same values, up to rounding."""
        values = self.replicates[..., 0]
        return bool(np.allclose(values, values[:, :1], rtol=1e-4, equal_nan=True))

    def row(self, estimator: str, parameter: str, num_samples: int) -> VarianceRow:
        """The row of one cell."""
        wanted = (estimator, parameter, num_samples)
        return next(row for row in self.rows if (row.estimator, row.parameter, row.num_samples) == wanted)

    def replicates_of(self, estimator: str, parameter: str, num_samples: int) -> Float[np.ndarray, " R"]:
        """The replicates of one cell."""
        cell = (
            self.estimators.index(estimator),
            self.num_samples.index(num_samples),
            self.parameters.index(parameter),
        )
        return self.replicates[:, *cell]


def measure(
    plan: StudyPlan,
    key: PRNGKey,
    *,
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> VarianceStudy:
    """Carries out a plan, in one compiled program for each estimator.

    Args:
        plan: from `plan_study` or `plan_comparison`.
        key: consumed.
        mesh: the devices that replicates are sharded over, by default the current one alone.
        on_progress: called with the share of the replicates that are done.
    """
    parts: list[Float[np.ndarray, "R N P"]] = []
    seconds = []
    for number, name in enumerate(plan.estimators):

        def on_share(share: float, number: int = number) -> None:
            on_progress((number + share) / len(plan.estimators))

        part, duration = timed_replicates(plan, name, key, mesh, on_share)
        parts.append(part)
        seconds.append(duration)
    replicates = np.stack(parts, axis=1)
    chex.assert_shape(
        replicates, (plan.num_replicates, len(plan.estimators), len(plan.num_samples), len(plan.parameters))
    )
    rows = list(variance_rows(plan, jax.jit(summarize)(replicates), seconds))
    return VarianceStudy(rows, replicates, plan.estimators, plan.num_samples, plan.parameters)


def study_variance(
    problem: Problem,
    params: Mapping[str, Any],
    key: PRNGKey,
    num_replicates: int,
    *,
    estimators: Sequence[str],
    num_samples: Sequence[int],
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> VarianceStudy:
    """Measures every estimator's value and gradient at every number of samples, in one compiled program each.

    In replicate r every estimator draws from the same key at every number of samples, and within an estimator the
    compiler shares the draws. So the rows are correlated: a smaller number's samples are the first of a larger one's.
    Large numbers of samples are averaged in blocks of 10,000, which draw their own; what couples an estimator's samples
    couples those of a block.

    Args:
        problem: the target, with its exact moments.
        params: the parameters of q at which gradients are taken.
        key: consumed.
        num_replicates: R, at least 2.
        estimators: names in `vae_jax.estimators.ESTIMATORS`.
        num_samples: the numbers of samples.
        mesh: the devices that replicates are sharded over, by default the current one alone.
        on_progress: called with the share of the replicates that are done.

    Raises:
        ValueError: as `plan_study`.
    """
    plan = plan_study(problem, params, num_replicates, estimators=estimators, num_samples=num_samples)
    return measure(plan, key, mesh=mesh, on_progress=on_progress)
