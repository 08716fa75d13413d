"""`vae-jax regress`: a Poisson regression of a table of data, fitted by stochastic ascent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vae_jax.cli.ascent_flags import AscentFlags
from vae_jax.cli.csv_numbers import read_columns
from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import Debug, Dtype, Out, Rank, Seed, check_options, optional, settings_of
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_1, FINITE_AND_POSITIVE, documented

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.cli.regress.regression_fit import RegressionFit


@dataclass(frozen=True)
@documented
class RegressCommand:
    """Fits a Poisson regression of a column of counts on others, by stochastic ascent on the ELBO.

    The log of the mean count is linear in the standardised predictors. Prints the coefficients and those of Laplace's
    approximation, and saves them with their figure as regress.json, regress.csv, history.csv, regress.png (and .pdf)
    and config.json.
    """

    csv: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.csv")]
    """File of data whose first line names its columns."""
    response: str
    """Column of counts."""
    predictors: tuple[str, ...]
    """Columns of the predictors, which are standardised."""
    prior_scale: Annotated[float, FINITE_AND_POSITIVE] = 2.5
    """Standard deviation of the normal prior of each standardised coefficient."""
    intercept_scale: Annotated[float, FINITE_AND_POSITIVE] = 10.0
    """Standard deviation of the normal prior of the intercept."""
    batch_size: Annotated[int | None, AT_LEAST_1, optional("INT")] = None
    """Rows in each step. By default all."""
    family: Literal["normal", "full_rank", "low_rank", "flow"] = "full_rank"
    """Variational family. The first has independent coefficients."""
    rank: Rank = 1
    ascent: AscentFlags = field(default_factory=partial(AscentFlags, num_samples=16, learning_rate_schedule="cosine"))
    """The stochastic ascent on the ELBO."""
    seed: Seed = 0
    dtype: Dtype = "float32"
    out: Out = Path("vae-jax-regress")
    debug: Debug = False

    def run(self) -> None:
        """Fits, prints and saves.

        Raises:
            Misuse: an argument or a file is refused.
        """
        check_options(self)
        self._check_columns()
        columns = read_columns(self.csv, (self.response, *self.predictors), counts=(self.response,))
        start_jax(self.dtype, num_cpu_devices=1)
        from vae_jax.cli.ascent_results import save_history
        from vae_jax.cli.regress.regression_tables import print_regression

        with staged(self.out) as folder:
            result = self._fit(columns)
            from vae_jax.cli.regress.regression_means import regression_figure

            about = {"environment": environment(self.dtype, self.seed), "fit": result.summary()}
            save_table(folder, "regress", result.rows(), about)
            save_history(folder, result.fitted)
            settings = settings_of(self) | self.ascent.stopping()
            save_config(folder, "regress", settings, positional=("csv",))
            save_figure(folder, "regress", regression_figure(result))
        print_regression(result, self.out)

    def _check_columns(self) -> None:
        if not self.predictors:
            raise Misuse(f"--predictors must name columns of {self.csv}, got none: write --predictors x z")
        names = [self.response, *self.predictors]
        for name in names:
            if names.count(name) > 1:
                raise Misuse(
                    f"--predictors must be other columns than --response, each once, got {name} twice: leave one out"
                )

    def _fit(self, columns: "Mapping[str, np.ndarray]") -> "RegressionFit":
        import numpy as np

        from vae_jax.cli.regress.poisson_regression import PoissonRegression
        from vae_jax.cli.regress.regression_fit import regression_family, summarize_regression

        predictors = np.column_stack([columns[name] for name in self.predictors])
        with refusals_are_misuse():
            regression = PoissonRegression(
                self.predictors, predictors, columns[self.response],
                prior_scale=self.prior_scale, intercept_scale=self.intercept_scale,
            )  # fmt: skip
            family = regression_family(self.family, regression, self.rank)
            target = regression.target(self.batch_size)
        fitted = self.ascent.ascend(target, family, self.seed)
        return summarize_regression(regression, self.response, fitted, family=family, name=self.family, seed=self.seed)
