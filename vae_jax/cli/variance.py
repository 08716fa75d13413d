"""`vae-jax variance`: gradient estimators measured beside the exact answers."""

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vae_jax.cli.counts import read_counts
from vae_jax.cli.gradient import report_gradient
from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.results import save_figure, staged
from vae_jax.cli.startup import check_seed, environment, start_jax
from vae_jax.files import write_csv, write_json

if TYPE_CHECKING:
    from vae_jax.problems import PoissonGamma
    from vae_jax.variance import VarianceStudy

PROBLEM_ESTIMATORS = ("pathwise", "sticking_the_landing", "score_function", "score_function+leave_one_out")
PROBLEM_NUM_SAMPLES = (5, 10, 100, 1000, 10000)


@dataclass(frozen=True)
class Variance:
    """Mean and standard deviation of gradient estimators, beside the exact ones.

    Prints a table, and saves it with its figures as variance.json, variance.csv, replicates.png, std.png (and .pdf) and
    config.json. With --run, the signal and the noise of a trained model's gradient instead.
    """

    problem: str = "poisson-gamma"
    """The target: poisson-gamma."""
    folder: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """Instead of a problem, the folder of a training run: signal and noise of its gradient, layer by layer."""
    estimators: tuple[str, ...] | None = None
    """Which estimators to measure. By default every one of a problem's, or a run's own."""
    family: str = "normal"
    """The variational family: normal (truncated at zero) or log_normal."""
    num_samples: tuple[int, ...] | None = None
    """Samples that one estimate averages. By default 5 to 10,000 in a problem, or a run's own of an image."""
    num_replicates: int = 1000
    """Estimates at each number of samples."""
    seed: int = 0
    """Of the random numbers."""
    data: tuple[str, ...] | None = None
    """Counts, or one CSV file with a count a line. By default the published ten."""
    prior_u: tuple[float, float] = (5.0, 1.0)
    """Concentration and rate of the Gamma prior of u."""
    prior_v: tuple[float, float] = (4.0, 4.0)
    """Concentration and rate of the Gamma prior of v."""
    loc: tuple[float, float] | None = None
    """loc of q(u) and q(v). By default 5 and 1, or what gives the log-normals those means."""
    scale: tuple[float, float] | None = None
    """scale of q(u) and q(v). By default 0.5 and 0.2, or what gives the log-normals those standard deviations."""
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
            self._study(
                PROBLEM_ESTIMATORS if self.estimators is None else self.estimators,
                PROBLEM_NUM_SAMPLES if self.num_samples is None else self.num_samples,
            )

    def _study(self, estimators: tuple[str, ...], num_samples: tuple[int, ...]) -> None:
        """Measures estimators on a problem."""
        counts = None if self.data is None else read_counts(self.data)
        start_jax(self.dtype)
        from vae_jax.cli.variance_table import print_study
        from vae_jax.variance import check_study

        with staged(self.out) as folder:
            with refusals_are_misuse():
                problem = self._problem(counts)
                params = self._params(problem)
                check_study(problem, params, self.num_replicates, estimators, num_samples)
            study = self._measure(problem, params, estimators, num_samples)
            self._save(study, problem, folder)
        print_study(study, problem, params, self.out)

    def _measure(
        self,
        problem: "PoissonGamma",
        params: dict[str, float],
        estimators: tuple[str, ...],
        num_samples: tuple[int, ...],
    ) -> "VarianceStudy":
        import jax

        from vae_jax.cli.progress import shown_progress
        from vae_jax.replicates import replicate_mesh
        from vae_jax.variance import study_variance

        with shown_progress(f"{len(estimators)} estimators, {self.num_replicates:,} replicates") as on_progress:
            return study_variance(
                problem,
                params,
                jax.random.key(self.seed),
                self.num_replicates,
                estimators=estimators,
                num_samples=num_samples,
                mesh=replicate_mesh(),
                on_progress=on_progress,
            )

    def _problem(self, counts: tuple[float, ...] | None) -> "PoissonGamma":
        from vae_jax.problems import Gamma, PoissonGamma

        if self.problem != PoissonGamma.name:
            raise Misuse(f"--problem must be one of {PoissonGamma.name}, got {self.problem}: choose of these")
        data = {} if counts is None else {"counts": counts}
        return PoissonGamma(**data, prior_u=Gamma(*self.prior_u), prior_v=Gamma(*self.prior_v), family=self.family)

    def _params(self, problem: "PoissonGamma") -> dict[str, float]:
        params = problem.default_params
        for kind, given in (("loc", self.loc), ("scale", self.scale)):
            if given is not None:
                params |= {f"{kind}_u": given[0], f"{kind}_v": given[1]}
        return params

    def _save(self, study: "VarianceStudy", problem: "PoissonGamma", folder: Path) -> None:
        from vae_jax import plotting

        rows = [asdict(row) for row in study.rows]
        write_json(folder / "variance.json", {"environment": environment(self.dtype, self.seed), "rows": rows})
        write_csv(folder / "variance.csv", rows)
        write_json(folder / "config.json", self._config(study, problem))
        save_figure(folder, "replicates", plotting.replicate_boxes(study))
        save_figure(folder, "std", plotting.std_by_samples(study))

    def _config(self, study: "VarianceStudy", problem: "PoissonGamma") -> dict[str, Any]:
        """Every setting, the data written out, and the command line that repeats the run."""
        settings = asdict(self) | {
            "data": [str(count) for count in problem.counts],
            "estimators": study.estimators,
            "num_samples": study.num_samples,
        }
        del settings["folder"]
        words = ["vae-jax", "variance"]
        for field in fields(self):
            value = settings.get(field.name)
            if value is not None and field.name not in ("debug", "out"):
                values = value if isinstance(value, list | tuple) else [value]
                words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
        return {"command": "variance", "settings": settings, "command_line": shlex.join(words)}
