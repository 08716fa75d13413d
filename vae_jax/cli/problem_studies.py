"""Estimators measured on a problem for a command, and the settings that measure them again."""

from typing import TYPE_CHECKING, Any

from vae_jax.cli.options import settings_of
from vae_jax.cli.problem_flags import ProblemFlags, as_settings
from vae_jax.cli.progress_bars import shown_progress
from vae_jax.settings import values_of

if TYPE_CHECKING:
    from vae_jax.problems import Problem
    from vae_jax.studies import StudyPlan, VarianceStudy


def measured_study(plan: "StudyPlan", seed: int) -> "VarianceStudy":
    """The study of a plan, over all devices, with a progress bar."""
    import jax

    from vae_jax.replicates import replicate_mesh
    from vae_jax.studies import measure

    number = len(plan.estimators)
    title = f"{number} estimator{'s' * (number > 1)}, {plan.num_replicates:,} replicates"
    with shown_progress(title) as on_progress:
        return measure(plan, jax.random.key(seed), mesh=replicate_mesh(), on_progress=on_progress)


def study_settings(options: Any, flags: ProblemFlags, problem: "Problem", params: dict[str, Any]) -> dict[str, Any]:
    """The settings of a command that measures estimators, its problem written out.

    Args:
        options: the command.
        flags: its flags of the problem.
        problem: that they give.
        params: of the problem's q.
    """
    own = {name: value for name, value in settings_of(options).items() if name not in values_of(flags)}
    return as_settings(flags, problem, params) | own
