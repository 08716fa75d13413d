"""`vae-jax variance`: gradient estimators measured beside the exact answers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vae_jax.cli.gradient_noise import report_gradient
from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.options import check_seed
from vae_jax.cli.output_folder import command_line, save_figure, staged
from vae_jax.cli.problem_flags import Target, as_settings
from vae_jax.files import write_csv, write_json
from vae_jax.runtime import environment, start_jax

if TYPE_CHECKING:
    from vae_jax.problems import Problem
    from vae_jax.studies import StudyPlan, VarianceStudy

PROBLEM_ESTIMATORS = ("pathwise", "sticking_the_landing", "score_function", "score_function+leave_one_out")
PROBLEM_NUM_SAMPLES = (5, 10, 100, 1000, 10000)
ALL = "all"
ALL_NUM_SAMPLES = (4, 16, 64, 256)
"""Even, as pairs need them, and small: some estimators evaluate the objective many times a sample."""

MOST_BY_SAMPLES = 5
"""Estimators that can be told apart by colour; more are drawn side by side at the largest number of samples."""


@dataclass(frozen=True)
class VarianceCommand:
    """Mean and standard deviation of gradient estimators, beside the exact ones.

    Prints a table, and saves it with its figures as variance.json, variance.csv, replicates.png, std.png (and .pdf) and
    config.json. With --run, the signal and the noise of a trained model's gradient instead.
    """

    target: Target = field(default_factory=Target)
    """What the gradient is of."""
    folder: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """Instead of a problem, the folder of a training run: signal and noise of its gradient, layer by layer."""
    estimators: tuple[str, ...] | None = None
    """Which estimators to measure; all for every one that the problem admits. By default the most usual four of
    those, or a run's own."""
    num_samples: tuple[int, ...] | None = None
    """Samples that one estimate averages. By default 5 to 10,000 in a problem, 4 to 256 with --estimators all, or a
    run's own of an image."""
    num_replicates: int = 1000
    """Estimates at each number of samples."""
    seed: int = 0
    """Of the random numbers."""
    dtype: str = "float32"
    """float32 or float64."""
    out: Path = Path("vae-jax-variance")
    """Folder for the results."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Measures, prints and saves.

        Raises:
            Misuse: an argument that no result can be had for.
        """
        check_seed(self.seed)
        if self.folder is not None:
            report_gradient(
                self.folder, self.out, estimators=self.estimators, num_samples=self.num_samples,
                num_replicates=self.num_replicates, seed=self.seed,
            )  # fmt: skip
        else:
            self._study()

    def _study(self) -> None:
        """Measures estimators on a problem."""
        counts = self.target.counts()
        start_jax(self.dtype)
        from vae_jax.cli.variance.variance_tables import print_study
        from vae_jax.studies import plan_study

        with staged(self.out) as folder:
            with refusals_are_misuse():
                problem, params = self.target.build(counts)
                problem.check_params(params)
                estimators = self._chosen(problem, params)
                num_samples = self.num_samples
                if num_samples is None:
                    num_samples = ALL_NUM_SAMPLES if self._is_all else PROBLEM_NUM_SAMPLES
                plan = plan_study(problem, params, self.num_replicates, estimators=estimators, num_samples=num_samples)
            study = self._measure(plan)
            self._save(study, problem, params, folder)
        print_study(study, problem, params, self.out)

    @property
    def _is_all(self) -> bool:
        return self.estimators == (ALL,)

    def _chosen(self, problem: "Problem", params: Mapping[str, Any]) -> tuple[str, ...]:
        from vae_jax.studies import admitted

        if self.estimators is not None and not self._is_all:
            return self.estimators
        possible = admitted(problem, params)
        usual = tuple(name for name in PROBLEM_ESTIMATORS if name in possible)
        return possible if self._is_all else usual

    def _measure(self, plan: "StudyPlan") -> "VarianceStudy":
        import jax

        from vae_jax.cli.progress_bars import shown_progress
        from vae_jax.replicates import replicate_mesh
        from vae_jax.studies import measure

        with shown_progress(f"{len(plan.estimators)} estimators, {self.num_replicates:,} replicates") as on_progress:
            return measure(plan, jax.random.key(self.seed), mesh=replicate_mesh(), on_progress=on_progress)

    def _save(self, study: "VarianceStudy", problem: "Problem", params: dict[str, Any], folder: Path) -> None:
        from vae_jax import plotting

        rows = [asdict(row) for row in study.rows]
        write_json(folder / "variance.json", {"environment": environment(self.dtype, self.seed), "rows": rows})
        write_csv(folder / "variance.csv", rows)
        write_json(folder / "config.json", self._config(study, problem, params))
        if len(study.estimators) <= MOST_BY_SAMPLES:
            boxes, stds = plotting.replicate_boxes, plotting.std_by_samples
        else:
            boxes, stds = plotting.boxes_by_estimator, plotting.std_by_estimator
        save_figure(folder, "replicates", boxes(study))
        save_figure(folder, "std", stds(study))

    def _config(self, study: "VarianceStudy", problem: "Problem", params: dict[str, Any]) -> dict[str, Any]:
        """Every setting, the data written out, and the command line that repeats the run."""
        settings = as_settings(self.target, problem, params) | {
            "estimators": study.estimators,
            "num_samples": study.num_samples,
            "num_replicates": self.num_replicates,
            "seed": self.seed,
            "dtype": self.dtype,
        }
        return {"command": "variance", "settings": settings, "command_line": command_line(["variance"], settings)}
