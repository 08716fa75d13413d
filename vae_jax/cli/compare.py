"""`vae-jax compare`: two estimators of one gradient, under common random numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import Debug, Dtype, NumReplicates, Out, Seed, check_options
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.cli.problem_flags import ProblemFlags
from vae_jax.cli.problem_studies import measured_study, study_settings
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_1

if TYPE_CHECKING:
    from vae_jax.problems import Problem
    from vae_jax.studies import Comparison


@dataclass(frozen=True)
class CompareCommand:
    """Compares two gradient estimators: variance ratio, with a confidence interval, and cost ratio.

    Both use the same random keys. Prints a table, and saves it with its figure as compare.json, compare.csv,
    config.json and ratios.png (and .pdf).
    """

    first: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FIRST")]
    """Estimator in the numerator of the ratio."""
    second: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SECOND")]
    """Estimator in the denominator of the ratio."""
    problem: ProblemFlags = field(default_factory=ProblemFlags)
    """The problem, and the parameters of q."""
    num_samples: Annotated[tuple[int, ...], AT_LEAST_1] = (10, 100, 1000)
    """Numbers of samples to try; each estimate averages that many."""
    num_replicates: NumReplicates = 1000
    seed: Seed = 0
    dtype: Dtype = "float32"
    out: Out = Path("vae-jax-compare")
    debug: Debug = False

    def run(self) -> None:
        """Measures, prints and saves.

        Raises:
            Misuse: an argument is refused.
        """
        check_options(self)
        if self.first == self.second:
            raise Misuse(f"the estimators must be two, got {self.first} twice: name another")
        counts = self.problem.poisson_gamma.counts()
        start_jax(self.dtype)
        from vae_jax.studies import comparison_of, plan_comparison

        with staged(self.out) as folder:
            with refusals_are_misuse():
                problem, params = self.problem.build(counts)
                plan = plan_comparison(
                    problem, params, self.num_replicates, first=self.first, second=self.second,
                    num_samples=self.num_samples,
                )  # fmt: skip
            comparison = comparison_of(measured_study(plan, self.seed))
            self._save(comparison, problem, params, folder)
        _print(comparison, self.out)

    def _save(self, comparison: "Comparison", problem: "Problem", params: Mapping[str, Any], folder: Path) -> None:
        from vae_jax import plotting

        rows = [asdict(row) for row in comparison.rows]
        save_table(folder, "compare", rows, {"environment": environment(self.dtype, self.seed)})
        settings = study_settings(self, self.problem, problem, dict(params))
        save_config(folder, "compare", settings, positional=("first", "second"))
        save_figure(folder, "ratios", plotting.variance_ratios(comparison))


def _print(comparison: "Comparison", out: Path) -> None:
    from rich.console import Console

    from vae_jax.cli.number_formats import with_error
    from vae_jax.cli.terminal_tables import add_numbers, add_words, plain_table, print_saved

    console = Console(highlight=False)
    one = comparison.rows[0]
    console.print(f"{one.first} over {one.second}", style="bold", markup=False)
    table = plain_table()
    add_words(table, "")
    add_numbers(table, "samples", "variance (95%)", "exact", "x time", "mean difference")
    add_words(table, "")
    last = None
    for row in comparison.rows:
        interval = f"{row.variance_ratio:.3g} ({row.variance_ratio_lower:.3g}-{row.variance_ratio_upper:.3g})"
        table.add_row(
            "" if row.parameter == last else row.parameter,
            f"{row.num_samples:,}",
            interval,
            "unknown" if row.exact_variance_ratio is None else f"{row.exact_variance_ratio:.4g}",
            f"{row.variance_seconds_ratio:.3g}",
            with_error(row.mean_difference, row.mean_difference_se),
            "" if row.reliable else "?",
        )
        last = row.parameter
    console.print(table)
    console.print(
        "Ratios are of the first to the second, from the same keys; x time is the ratio of variance times time."
        + (
            ""
            if all(row.reliable for row in comparison.rows)
            else " ? The interval cannot be trusted: the tails are too heavy for this many replicates."
        )
    )
    print_saved(console, out, "compare.json", "compare.csv", "ratios.png", "config.json")
