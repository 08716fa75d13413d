"""`vae-jax variance`: gradient estimators measured where the exact answers are known."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.options import Debug, Dtype, NumReplicates, Out, Seed, check_options, optional
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.cli.problem_flags import ProblemFlags
from vae_jax.cli.problem_studies import measured_study, study_settings
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_1, documented

if TYPE_CHECKING:
    from vae_jax.problems import Problem
    from vae_jax.studies import VarianceStudy

PROBLEM_ESTIMATORS = ("pathwise", "sticking_the_landing", "score_function", "score_function+leave_one_out")
PROBLEM_NUM_SAMPLES = (5, 10, 100, 1000, 10000)
ALL = "all"
ALL_NUM_SAMPLES = (4, 16, 64, 256)
"""Even, as pairs need them, and small: some estimators evaluate the objective many times a sample."""

MOST_BY_SAMPLES = 5
"""Estimators that colours can distinguish; more are drawn side by side at the largest number of samples."""


@dataclass(frozen=True)
@documented
class VarianceCommand:
    """Measures gradient estimators on a problem with exact answers: mean, standard deviation and cost.

    Prints tables, and saves them with their figures as variance.json, variance.csv, replicates.png, std.png (and .pdf)
    and config.json.
    """

    problem: ProblemFlags = field(default_factory=ProblemFlags)
    """The problem, and the parameters of q."""
    estimators: Annotated[tuple[str, ...], optional("[STR ...]")] = ()
    """Gradient estimators to measure, or all that the problem supports by the word all. A wrong name lists them. By
    default the four most common that it supports."""
    num_samples: Annotated[tuple[int, ...], AT_LEAST_1, optional("[INT ...]")] = ()
    """Numbers of samples to try; each estimate averages that many. By default 5 to 10,000, or 4 to
    256 with --estimators all."""
    num_replicates: NumReplicates = 1000
    seed: Seed = 0
    dtype: Dtype = "float32"
    out: Out = Path("vae-jax-variance")
    debug: Debug = False

    def run(self) -> None:
        """Measures, prints and saves.

        Raises:
            Misuse: an argument is refused.
        """
        check_options(self)
        counts = self.problem.poisson_gamma.counts()
        start_jax(self.dtype)
        from vae_jax.cli.variance.variance_tables import print_study
        from vae_jax.studies import plan_study

        with staged(self.out) as folder:
            with refusals_are_misuse():
                problem, params = self.problem.build(counts)
                problem.check_params(params)
                estimators = self._chosen(problem, params)
                num_samples = self.num_samples or (ALL_NUM_SAMPLES if self._is_all else PROBLEM_NUM_SAMPLES)
                plan = plan_study(problem, params, self.num_replicates, estimators=estimators, num_samples=num_samples)
            study = measured_study(plan, self.seed)
            self._save(study, problem, params, folder)
        print_study(study, problem, params, self.out)

    @property
    def _is_all(self) -> bool:
        return self.estimators == (ALL,)

    def _chosen(self, problem: "Problem", params: Mapping[str, Any]) -> tuple[str, ...]:
        from vae_jax.studies import admitted

        if self.estimators and not self._is_all:
            return self.estimators
        possible = admitted(problem, params)
        usual = tuple(name for name in PROBLEM_ESTIMATORS if name in possible)
        return possible if self._is_all else usual

    def _save(self, study: "VarianceStudy", problem: "Problem", params: dict[str, Any], folder: Path) -> None:
        from vae_jax import plotting

        rows = [asdict(row) for row in study.rows]
        save_table(folder, "variance", rows, {"environment": environment(self.dtype, self.seed)})
        measured = replace(self, estimators=study.estimators, num_samples=study.num_samples)
        save_config(folder, "variance", study_settings(measured, self.problem, problem, params))
        if len(study.estimators) <= MOST_BY_SAMPLES:
            boxes, stds = plotting.replicate_boxes, plotting.std_by_samples
        else:
            boxes, stds = plotting.boxes_by_estimator, plotting.std_by_estimator
        save_figure(folder, "replicates", boxes(study))
        save_figure(folder, "std", stds(study))
