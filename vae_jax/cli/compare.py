"""`vae-jax compare`: two estimators of one gradient, under common random numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import check_seed
from vae_jax.cli.output_folder import command_line, save_figure, staged
from vae_jax.cli.problem_flags import Target, as_settings
from vae_jax.files import write_csv, write_json
from vae_jax.runtime import environment, start_jax

if TYPE_CHECKING:
    from vae_jax.problems import Problem
    from vae_jax.studies import Comparison, StudyPlan


@dataclass(frozen=True)
class CompareCommand:
    """The ratio of two gradient estimators' variances, with a confidence interval, and of what they cost.

    Both draw from the same keys. Prints a table, and saves it with its figure as compare.json, compare.csv, ratios.png
    (and .pdf) and config.json.
    """

    first: tyro.conf.Positional[str]
    """The estimator whose variance stands above."""
    second: tyro.conf.Positional[str]
    """The one below."""
    target: Target = field(default_factory=Target)
    """What the gradient is of."""
    num_samples: tuple[int, ...] = (10, 100, 1000)
    """Samples that one estimate averages."""
    num_replicates: int = 1000
    """Pairs of estimates at each number of samples."""
    seed: int = 0
    """Of the random numbers."""
    dtype: str = "float32"
    """float32 or float64."""
    out: Path = Path("vae-jax-compare")
    """Folder for the results."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Measures, prints and saves.

        Raises:
            Misuse: an argument that no result can be had for.
        """
        check_seed(self.seed)
        if self.first == self.second:
            raise Misuse(f"the estimators must be two, got {self.first} twice: name another")
        counts = self.target.counts()
        start_jax(self.dtype)
        from vae_jax.studies import plan_comparison

        with staged(self.out) as folder:
            with refusals_are_misuse():
                problem, params = self.target.build(counts)
                plan = plan_comparison(
                    problem, params, self.num_replicates, first=self.first, second=self.second,
                    num_samples=self.num_samples,
                )  # fmt: skip
            comparison = self._measure(plan)
            self._save(comparison, problem, params, folder)
        _print(comparison, self.out)

    def _measure(self, plan: "StudyPlan") -> "Comparison":
        import jax

        from vae_jax.cli.progress_bars import shown_progress
        from vae_jax.replicates import replicate_mesh
        from vae_jax.studies import comparison_of, measure

        with shown_progress(f"2 estimators, {self.num_replicates:,} replicates") as on_progress:
            study = measure(plan, jax.random.key(self.seed), mesh=replicate_mesh(), on_progress=on_progress)
        return comparison_of(study)

    def _save(self, comparison: "Comparison", problem: "Problem", params: Mapping[str, Any], folder: Path) -> None:
        from vae_jax import plotting

        rows = [asdict(row) for row in comparison.rows]
        write_json(folder / "compare.json", {"environment": environment(self.dtype, self.seed), "rows": rows})
        write_csv(folder / "compare.csv", rows)
        settings = as_settings(self.target, problem, dict(params)) | {
            "num_samples": self.num_samples,
            "num_replicates": self.num_replicates,
            "seed": self.seed,
            "dtype": self.dtype,
        }
        line = command_line(["compare", self.first, self.second], settings)
        about = {"command": "compare", "first": self.first, "second": self.second}
        write_json(folder / "config.json", about | {"settings": settings, "command_line": line})
        save_figure(folder, "ratios", plotting.variance_ratios(comparison))


def _print(comparison: "Comparison", out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from vae_jax.cli.number_formats import with_error

    console = Console(highlight=False)
    one = comparison.rows[0]
    console.print(f"{one.first} over {one.second}", style="bold", markup=False)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for header in ("samples", "variance (95%)", "exact", "x time", "mean difference"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
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
        + ("" if all(row.reliable for row in comparison.rows) else " ? A standard deviation cannot be trusted.")
    )
    console.print(f"Saved in {out}: compare.json, compare.csv, ratios.png, config.json", markup=False)
