"""`vae-jax fit`: a variational family fitted by stochastic ascent, where the answer is known or to a table of data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.csv_columns import read_columns
from vae_jax.cli.csv_counts import read_counts
from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import check_seed
from vae_jax.cli.output_folder import command_line, save_figure, staged
from vae_jax.files import write_csv, write_json
from vae_jax.runtime import environment, start_jax

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.cli.fit.fit_summaries import ProblemFit, RegressionFit
    from vae_jax.inference.fit import Fit

POISSON_GAMMA = "poisson-gamma"
FAMILIES = ("normal", "log_normal", "gamma", "full_rank", "low_rank", "flow")
POSITIVE_FAMILIES = ("log_normal", "gamma")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class FitCommand:
    """Fits a variational family by stochastic ascent on the ELBO.

    With --problem poisson-gamma, to x_i ~ Poisson(u v) with Gamma priors, beside the exact posterior. With --csv, to a
    Poisson regression of a column of counts on others, beside Laplace's approximation. Prints a table, and saves it
    with its figure as fit.json, fit.csv, history.csv, fit.png (and .pdf) and config.json.
    """

    problem: str | None = None
    """poisson-gamma."""
    csv: Path | None = None
    """A file of data with a line of column names, for a Poisson regression."""
    response: str | None = None
    """The column of counts."""
    predictors: tuple[str, ...] = ()
    """The columns that the log of the mean count is linear in. They are standardised."""
    family: str | None = None
    """normal, log_normal, gamma (independent ones), full_rank, low_rank or flow. By default normal for poisson-gamma,
    truncated at zero there, and full_rank for a regression."""
    rank: int = 1
    """Of low_rank's covariance beside its diagonal."""
    data: tuple[str, ...] | None = None
    """Counts of poisson-gamma, or one CSV file with a count a line. By default the published ten."""
    prior_u: tuple[float, float] = (5.0, 1.0)
    """Concentration and rate of poisson-gamma's Gamma prior of u."""
    prior_v: tuple[float, float] = (4.0, 4.0)
    """Concentration and rate of its Gamma prior of v."""
    prior_scale: float = 2.5
    """Standard deviation of the normal prior of a regression's coefficients, its predictors being standardised."""
    intercept_scale: float = 10.0
    """That of the intercept's."""
    batch_size: int | None = None
    """Rows that each step of a regression sees. By default all."""
    estimator: str = "pathwise"
    """Of the gradient: any that takes the family, as in vae-jax variance."""
    num_samples: int | None = None
    """Of the family, in a step's estimate. By default 64 for poisson-gamma, and 16 for a regression."""
    num_steps: int = 10000
    """At most, a multiple of --window."""
    learning_rate: float = 0.01
    """Of Adam."""
    learning_rate_schedule: str | None = None
    """constant, or cosine for a decay to nothing over all steps. By default constant for poisson-gamma, which stops by
    itself, and cosine for a regression."""
    window: int = 1000
    """Steps over which the parameters and the ELBO's history are averaged."""
    patience: int | None = None
    """Stop after so many windows in a row whose mean ELBO rises by no more than its standard error and --tolerance.
    0 makes all steps. By default 2 with a constant learning rate, and 0 with a cosine."""
    tolerance: float | None = None
    """Nats by which the mean ELBO may rise from a window to the next, beside its standard error, and be level. By
    default 0.01, and 0.05 with a cosine, under which the ELBO rises to the end as the steps become less noisy."""
    num_restarts: int = 4
    """Runs from other random numbers; the best is kept, and their spread is the error of the estimates."""
    seed: int = 0
    """Of the random numbers."""
    dtype: str = "float32"
    """float32 or float64."""
    out: Path = Path("vae-jax-fit")
    """Folder for the results."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Fits, prints and saves.

        Raises:
            Misuse: an argument or a file that no result can be had for.
        """
        self._check()
        columns = None if self.csv is None else self._columns()
        counts = None if self.data is None else read_counts(self.data)
        start_jax(self.dtype, num_cpu_devices=1)
        from vae_jax.cli.fit.fit_tables import print_problem, print_regression
        from vae_jax.plotting.fit import poisson_gamma_fit, regression_fit

        with staged(self.out) as folder:
            if columns is None:
                result: Any = self._fit_problem(counts)
                draw, show = poisson_gamma_fit, print_problem
            else:
                result = self._fit_regression(columns)
                draw, show = regression_fit, print_regression
            self._save(result, folder)
            save_figure(folder, "fit", draw(result))
        show(result, self.out)

    @property
    def _is_cosine(self) -> bool:
        default = "cosine" if self.csv else "constant"
        return (self.learning_rate_schedule or default) == "cosine"

    @property
    def _patience(self) -> int:
        return self.patience if self.patience is not None else 0 if self._is_cosine else 2

    @property
    def _tolerance(self) -> float:
        return self.tolerance if self.tolerance is not None else 0.05 if self._is_cosine else 0.01

    @property
    def _num_samples(self) -> int:
        return self.num_samples if self.num_samples is not None else 64 if self.csv is None else 16

    @property
    def _family(self) -> str:
        return self.family or ("normal" if self.csv is None else "full_rank")

    def _check(self) -> None:
        check_seed(self.seed)
        if (self.problem is None) == (self.csv is None):
            given = "neither" if self.csv is None else "both"
            raise Misuse(f"one of --problem and --csv must be given, got {given}: write --problem poisson-gamma")
        if self.csv is None and self.problem != POISSON_GAMMA:
            raise Misuse(f"--problem must be {POISSON_GAMMA}, got {self.problem}: use it, or --csv")
        self._check_belonging()
        if self._family not in FAMILIES:
            raise Misuse(f"--family must be one of {', '.join(FAMILIES)}, got {self.family}: choose of these")
        if self.csv is not None and self._family in POSITIVE_FAMILIES:
            raise Misuse(
                f"--family must hold coefficients of either sign, got {self.family}: use normal, full_rank, low_rank "
                "or flow"
            )
        if self.learning_rate_schedule not in (None, *SCHEDULES):
            raise Misuse(
                f"--learning-rate-schedule must be one of {', '.join(SCHEDULES)}, got {self.learning_rate_schedule}: "
                "choose of these"
            )
        for name in ("num_steps", "num_restarts", "window", "_num_samples"):
            if (number := getattr(self, name)) < 1:
                flag = name.strip("_").replace("_", "-")
                raise Misuse(f"--{flag} must be at least 1, got {number}: raise it")
        if not 0 < self.learning_rate < float("inf"):
            raise Misuse(f"--learning-rate must be positive and finite, got {self.learning_rate}: change it")
        if self._patience < 0:
            raise Misuse(f"--patience must be 0 or more, got {self.patience}: raise it")
        if not 0 <= self._tolerance < float("inf"):
            raise Misuse(f"--tolerance must be 0 or more and finite, got {self.tolerance}: change it")

    def _check_belonging(self) -> None:
        """Refuses flags of the other kind of fit, or of another family."""
        if self.rank != FitCommand.rank and self._family != "low_rank":
            raise Misuse(
                f"--rank must be left out with --family {self._family}, got {self.rank}: it goes with low_rank"
            )
        of_regression = ("response", "predictors", "prior_scale", "intercept_scale", "batch_size")
        of_problem = ("data", "prior_u", "prior_v")
        foreign, kind = (of_regression, "--csv") if self.csv is None else (of_problem, "--problem")
        for name in foreign:
            if getattr(self, name) != getattr(FitCommand, name):
                raise Misuse(f"--{name.replace('_', '-')} must be left out here, got it: it goes with {kind}")
        if self.csv is not None and (self.response is None or not self.predictors):
            missing = "--response" if self.response is None else "--predictors"
            raise Misuse(f"{missing} must name columns of {self.csv}, got none: write --response y --predictors x z")
        if self.csv is not None:
            names = [self.response, *self.predictors]
            for name in names:
                if names.count(name) > 1:
                    raise Misuse(
                        f"--predictors must be other columns than --response, each once, got {name} twice: "
                        "leave one out"
                    )

    def _columns(self) -> "dict[str, np.ndarray]":
        assert self.csv is not None
        assert self.response is not None
        return read_columns(self.csv, (self.response, *self.predictors), counts=(self.response,))

    def _fit_problem(self, counts: Sequence[float] | None) -> "ProblemFit":
        from vae_jax.cli.fit.fit_summaries import problem_family, summarize_problem
        from vae_jax.problems import GammaPrior, PoissonGamma

        with refusals_are_misuse():
            data: dict[str, Any] = {} if counts is None else {"counts": counts}
            problem = PoissonGamma(**data, prior_u=GammaPrior(*self.prior_u), prior_v=GammaPrior(*self.prior_v))
            family = problem_family(self._family, problem, self.rank)
        fitted = self._ascend(problem.log_joint, family)
        return summarize_problem(problem, self._family, family, fitted, self.seed)

    def _fit_regression(self, columns: "dict[str, np.ndarray]") -> "RegressionFit":
        import numpy as np

        from vae_jax.cli.fit.fit_summaries import regression_family, summarize_regression
        from vae_jax.cli.regress.poisson_regression import PoissonRegression

        predictors = np.column_stack([columns[name] for name in self.predictors])
        with refusals_are_misuse():
            regression = PoissonRegression(
                self.predictors, predictors, columns[self.response or ""],
                prior_scale=self.prior_scale, intercept_scale=self.intercept_scale,
            )  # fmt: skip
            family = regression_family(self._family, regression, self.rank)
            target = regression.target(self.batch_size)
        fitted = self._ascend(target, family)
        return summarize_regression(regression, self.response or "", self._family, family, fitted, self.seed)

    def _ascend(self, log_joint: Any, family: Any) -> "Fit":
        import jax
        import optax

        from vae_jax.cli.progress_bars import shown_progress
        from vae_jax.estimators import ESTIMATORS
        from vae_jax.inference.fit.elbo_plateau import ElboPlateau
        from vae_jax.inference.fit.fit import fit

        if self.estimator not in ESTIMATORS:
            raise Misuse(f"--estimator must be one of {', '.join(ESTIMATORS)}, got {self.estimator}: choose of these")
        rate: Any = self.learning_rate
        if self._is_cosine:
            rate = optax.cosine_decay_schedule(rate, max(self.num_steps, 1))
        task = f"{self.num_restarts:,} runs of at most {self.num_steps:,} steps"
        with refusals_are_misuse(), shown_progress(task):
            return fit(
                log_joint,
                family,
                jax.random.key(self.seed),
                optimizer=optax.adam(rate),
                num_steps=self.num_steps,
                num_samples=self._num_samples,
                estimator=ESTIMATORS[self.estimator],
                num_restarts=self.num_restarts,
                window=self.window,
                stopping=ElboPlateau(tolerance=self._tolerance, patience=self._patience) if self._patience else None,
                criterion=ElboPlateau(tolerance=self._tolerance),
            )

    def _save(self, result: Any, folder: Path) -> None:
        rows = result.rows()
        content = {"environment": environment(self.dtype, self.seed), "fit": result.summary(), "rows": rows}
        write_json(folder / "fit.json", content)
        write_csv(folder / "fit.csv", rows)
        write_csv(folder / "history.csv", _history(result.fitted, self.window))
        settings = self._settings()
        line = command_line(["fit"], settings)
        write_json(folder / "config.json", {"command": "fit", "settings": settings, "command_line": line})

    def _settings(self) -> dict[str, Any]:
        """Every setting of this kind of fit that is not left to its default."""
        left_out = {"out", "debug"}
        given = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}
        chosen = {
            "family": self._family,
            "patience": self._patience,
            "tolerance": self._tolerance,
            "num_samples": self._num_samples,
            "learning_rate_schedule": "cosine" if self._is_cosine else "constant",
        }
        always = {"estimator", "num_steps", "learning_rate", "window", "num_restarts", "seed", "dtype"}
        kept = {name: value for name, value in given.items() if name in always or value != getattr(FitCommand, name)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in (kept | chosen).items()}


def _history(fitted: "Fit", window: int) -> list[dict[str, Any]]:
    windows = zip(fitted.window_means.tolist(), fitted.window_mean_ses.tolist(), strict=True)
    return [
        {"steps": (number + 1) * window, "elbo_mean": mean, "elbo_mean_se": error}
        for number, (mean, error) in enumerate(windows)
    ]
