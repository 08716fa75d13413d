"""`vae-jax fit`: a variational family fitted by stochastic ascent, where the posterior is known."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vae_jax.cli.ascent_flags import AscentFlags
from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.options import Debug, Dtype, Out, Rank, Seed, check_options, settings_of
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.cli.poisson_gamma_flags import POISSON_GAMMA, PoissonGammaFlags
from vae_jax.runtime import environment, start_jax

if TYPE_CHECKING:
    from vae_jax.cli.fit.problem_fit import ProblemFit


@dataclass(frozen=True)
class FitCommand:
    """Fits a variational family to a problem whose posterior is known, by stochastic ascent on the ELBO.

    The problem is x_i ~ Poisson(u v) with Gamma priors of u and v. Prints the family's moments and those of the exact
    posterior, and saves them with their figure as fit.json, fit.csv, history.csv, fit.png (and .pdf) and config.json.
    vae-jax regress fits a table of data.
    """

    problem: Literal["poisson-gamma"] = POISSON_GAMMA
    """The problem."""
    poisson_gamma: PoissonGammaFlags = field(default_factory=PoissonGammaFlags)
    """The problem's data and priors."""
    family: Literal["normal", "log_normal", "gamma", "full_rank", "low_rank", "flow"] = "normal"
    """Variational family. The first three have independent factors; the normal is truncated at zero."""
    rank: Rank = 1
    ascent: AscentFlags = field(default_factory=AscentFlags)
    """The stochastic ascent on the ELBO."""
    seed: Seed = 0
    dtype: Dtype = "float32"
    out: Out = Path("vae-jax-fit")
    debug: Debug = False

    def run(self) -> None:
        """Fits, prints and saves.

        Raises:
            Misuse: an argument or a file is refused.
        """
        check_options(self)
        counts = self.poisson_gamma.counts()
        start_jax(self.dtype, num_cpu_devices=1)
        from vae_jax.cli.ascent_results import save_history
        from vae_jax.cli.fit.fit_tables import print_problem_fit

        with staged(self.out) as folder:
            result = self._fit(counts)
            from vae_jax.cli.fit.fit_densities import problem_figure

            about = {"environment": environment(self.dtype, self.seed), "fit": result.summary()}
            save_table(folder, "fit", result.rows(), about)
            save_history(folder, result.fitted)
            save_config(folder, "fit", settings_of(self) | self.ascent.stopping())
            save_figure(folder, "fit", problem_figure(result))
        print_problem_fit(result, self.out)

    def _fit(self, counts: tuple[float, ...] | None) -> "ProblemFit":
        from vae_jax.cli.fit.problem_fit import problem_family, summarize_problem

        with refusals_are_misuse():
            problem = self.poisson_gamma.build(counts)
            family = problem_family(self.family, problem, self.rank)
        fitted = self.ascent.ascend(problem.log_joint, family, self.seed)
        return summarize_problem(problem, self.family, family, fitted, self.seed)
