"""A study of estimators on a problem, validated before any work is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import Problem
from vae_jax.problems.parameter_checks import element_names
from vae_jax.replicates import check_replicates
from vae_jax.studies.admitted_estimators import refusal

MAX_STUDY_BYTES = 2**32
"""Memory for the replicates that a study keeps, at most."""


@dataclass(frozen=True)
class StudyPlan:
    """A validated study: every estimator at every number of samples, R times."""

    problem: Problem
    params: Mapping[str, Any]
    """The parameters of q, where gradients are taken."""
    num_replicates: int
    estimators: tuple[str, ...]
    """Names in `ESTIMATORS`, each once."""
    num_samples: tuple[int, ...]
    """Numbers of samples from the smallest to the largest, each once."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The problem's name for the value, then those of q's parameters, a vector's by element."""
        return parameter_names(self.problem, self.params)


def plan_study(
    problem: Problem,
    params: Mapping[str, Any],
    num_replicates: int,
    *,
    estimators: Sequence[str],
    num_samples: Sequence[int],
) -> StudyPlan:
    """Validates a study of estimators on a problem, which `measure` then carries out.

    Args:
        problem: the target, with its exact moments.
        params: the parameters of q at which gradients are taken.
        num_replicates: R, at least 2.
        estimators: names in `vae_jax.estimators.ESTIMATORS`.
        num_samples: the numbers of samples.

    Returns:
        The plan, with each estimator and each number of samples once, the numbers in ascending order.

    Raises:
        ValueError: no or unknown estimators, fewer than 2 replicates, a number of samples that is not positive or that
            an estimator refuses, parameters that the problem refuses, an estimator that rejects the problem, or more
            replicates than can be kept.

    Example:
        >>> import vae_jax as vj
        >>> problem, params = vj.problems.SquareCost(), {"loc": 1.0, "scale": 1.0}  # E[z^2] for z ~ Normal(1, 1)
        >>> plan = vj.studies.plan_study(problem, params, 1000, estimators=["pathwise"], num_samples=[10, 1, 10])
        >>> plan.num_samples, plan.parameters
        ((1, 10), ('cost', 'loc', 'scale'))
        >>> vj.studies.plan_study(problem, params, 1000, estimators=["arm"], num_samples=[10])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: arm: ...
    """
    problem.check_params(params)
    check_replicates(num_replicates, None, least=2)
    _check_estimators(estimators)
    _check_num_samples(num_samples)
    plan = StudyPlan(problem, params, num_replicates, tuple(dict.fromkeys(estimators)), tuple(sorted(set(num_samples))))
    _check_admitted(plan)
    _check_size(plan)
    return plan


def parameter_names(problem: Problem, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Lists the problem's name for the value, then the names of the parameters: "loc", or "logits[0]" of a vector.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.CategoricalCost(values=(1.0, 2.0))
        >>> vj.studies.parameter_names(problem, problem.default_params)
        ('cost', 'logits[0]', 'logits[1]')
    """
    return (problem.value_name, *(name for key, value in params.items() for name in element_names(key, value)))


def _check_estimators(estimators: Sequence[str]) -> None:
    if not estimators:
        raise ValueError(f"estimators must name at least one of {', '.join(ESTIMATORS)}, got none: add one")
    for name in estimators:
        if name not in ESTIMATORS:
            raise ValueError(f"estimators must be among {', '.join(ESTIMATORS)}, got {name}: use one of these")


def _check_num_samples(num_samples: Sequence[int]) -> None:
    if not num_samples:
        raise ValueError("num_samples must have at least one number, got none: add one")
    for size in num_samples:
        if size < 1:
            raise ValueError(f"num_samples must be at least 1, got {size}: raise it")


def _check_admitted(plan: StudyPlan) -> None:
    for name in plan.estimators:
        for size in _probes(plan.num_samples):
            reason = refusal(plan.problem, plan.params, name, size)
            if reason is not None:
                raise ValueError(f"{name}: {reason}")


def _probes(num_samples: Sequence[int]) -> list[int]:
    """The least even and the least odd number: an estimator refuses too few samples, or an odd number."""
    return sorted({min(size for size in num_samples if size % 2 == rest) for rest in {n % 2 for n in num_samples}})


def _check_size(plan: StudyPlan) -> None:
    cells = len(plan.estimators) * len(plan.num_samples) * len(plan.parameters)
    kept = plan.num_replicates * cells * 4
    if kept > MAX_STUDY_BYTES:
        raise ValueError(
            f"num_replicates must keep the replicates within {MAX_STUDY_BYTES / 1e9:.1f} GB, got "
            f"{plan.num_replicates:,} for {kept / 1e9:.1f} GB: lower it, or use gradient_statistics, which keeps none"
        )
