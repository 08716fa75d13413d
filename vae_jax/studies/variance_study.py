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
    """Results of a variance study: its rows, and the replicates that they summarize.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem, params = vj.problems.SquareCost(), {"loc": 1.0, "scale": 1.0}  # E[z^2] for z ~ Normal(1, 1)
        >>> study = vj.study_variance(
        ...     problem, params, jax.random.key(0), 100, estimators=["pathwise"], num_samples=[5]
        ... )
        >>> study.parameters, len(study.rows), study.replicates_of("pathwise", "scale", 5).shape
        (('cost', 'loc', 'scale'), 3, (100,))
    """

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
        """Returns the row of an estimator and a parameter at a number of samples."""
        wanted = (estimator, parameter, num_samples)
        return next(row for row in self.rows if (row.estimator, row.parameter, row.num_samples) == wanted)

    def replicates_of(self, estimator: str, parameter: str, num_samples: int) -> Float[np.ndarray, " R"]:
        """Returns the replicates [R] of an estimator and a parameter at a number of samples."""
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
    """Carries out a planned study, in one compiled program for each estimator.

    Args:
        plan: from `plan_study` or `plan_comparison`.
        key: consumed.
        mesh: the devices that replicates are sharded over, by default the current one alone.
        on_progress: a function that is called with the share of the replicates that are done, from 0 to 1.

    Returns:
        The study, as `study_variance` returns it.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem, params = vj.problems.SquareCost(), {"loc": 1.0, "scale": 1.0}  # E[z^2] for z ~ Normal(1, 1)
        >>> plan = vj.studies.plan_study(problem, params, 1000, estimators=["pathwise"], num_samples=[1, 10])
        >>> study = vj.studies.measure(plan, jax.random.key(0))
        >>> study.replicates.shape  # replicates, estimators, numbers of samples, parameters
        (1000, 1, 2, 3)
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
    """Measures the variance of every estimator's value and gradient at every number of samples.

    Each estimator is one compiled program. In replicate r every estimator draws from the same key at every number of
    samples, and within an estimator the compiler shares the draws. So the rows are correlated: the samples of a smaller
    number are the first of a larger one. Large numbers of samples are averaged in blocks of 10,000, each with draws of
    its own. An estimator that couples its samples couples those of a block.

    Args:
        problem: the target, with its exact moments.
        params: the parameters of q at which gradients are taken.
        key: consumed.
        num_replicates: R, at least 2.
        estimators: names in `vae_jax.estimators.ESTIMATORS`.
        num_samples: the numbers of samples.
        mesh: the devices that replicates are sharded over, by default the current one alone.
        on_progress: a function that is called with the share of the replicates that are done, from 0 to 1.

    Returns:
        A row for each estimator, parameter and number of samples, and the replicates that the rows summarize.

    Raises:
        ValueError: as `plan_study`.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> problem = vj.problems.LinearGaussian(x=1.5)
        >>> params = problem.posterior._asdict()  # with q at the posterior sticking the landing has no variance
        >>> names = ["pathwise", "sticking_the_landing"]
        >>> study = vj.study_variance(problem, params, jax.random.key(0), 5000, estimators=names, num_samples=[10])
        >>> for row in (study.row(name, "loc", num_samples=10) for name in names):
        ...     print(f"{row.estimator}: {row.std:.2f}, exact {row.exact_std:.2f}")
        pathwise: 0.45, exact 0.45
        sticking_the_landing: 0.00, exact 0.00
    """
    plan = plan_study(problem, params, num_replicates, estimators=estimators, num_samples=num_samples)
    return measure(plan, key, mesh=mesh, on_progress=on_progress)
