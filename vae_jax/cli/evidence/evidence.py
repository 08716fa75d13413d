"""`vae-jax evidence`: the log evidence by every estimator, where it is known exactly."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from vae_jax.cli.evidence.evidence_rows import evidence_row
from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import Debug, Dtype, Out, Seed, check_options, settings_of
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.evidence_budget import Budget
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import Range

SAVED = ("evidence.json", "evidence.csv", "evidence.png", "config.json")


@dataclass(frozen=True)
class EvidenceCommand:
    """Estimates log p(x) of a problem whose exact value is known, by four estimators.

    The model has latents z_d ~ Normal(0, 1) and data x_d ~ Normal(z_d + z_{d-1} / 2, 1), one for each, all 1.5. The
    estimators are prior sampling, importance sampling, annealing and the importance-weighted bound, and the proposal
    is the best mean-field normal. Prints a table by the number of latents, and saves it with its figure as
    evidence.json, evidence.csv, evidence.png (and .pdf) and config.json.
    """

    problem: Literal["linear-gaussian"] = "linear-gaussian"
    """The problem."""
    num_latents: Annotated[tuple[int, ...], Range(1, 1_000)] = (1, 2, 5, 10, 20, 50)
    """Numbers of latents, a model for each."""
    budget: Budget = field(default_factory=Budget)
    """Samples, chains and temperatures of the estimators."""
    seed: Seed = 0
    dtype: Dtype = "float32"
    out: Out = Path("vae-jax-evidence")
    debug: Debug = False

    def run(self) -> None:
        """Estimates, prints and saves.

        Raises:
            Misuse: an argument is refused.
        """
        check_options(self)
        with refusals_are_misuse():
            self.budget.check()
        num_latents = tuple(sorted(set(self.num_latents)))
        if not num_latents:
            raise Misuse("--num-latents must have at least one number, got none: write --num-latents 1 2 5")
        start_jax(self.dtype, num_cpu_devices=1)
        from vae_jax.cli.evidence.evidence_tables import print_by_latents
        from vae_jax.plotting.evidence import evidence_by_latents

        with staged(self.out) as folder, shown_steps() as on_progress:
            rows: list[dict[str, Any]] = []
            for place, number in enumerate(num_latents):
                on_progress("log p(x) of growing numbers of latents", place / len(num_latents))
                rows += _rows(number, self.seed, self.budget)
            save_table(folder, "evidence", rows, {"environment": environment(self.dtype, self.seed)})
            save_config(folder, "evidence", settings_of(self) | {"num_latents": num_latents})
            save_figure(folder, "evidence", evidence_by_latents(rows))
        print_by_latents(rows, self.budget, self.out, SAVED)


def _rows(num_latents: int, seed: int, budget: Budget) -> list[dict[str, Any]]:
    """A row for each estimator."""
    import jax

    from vae_jax.inference.evidence import compare_estimates
    from vae_jax.problems import LinearGaussianChain

    problem = LinearGaussianChain(num_latents)
    key = jax.random.fold_in(jax.random.key(seed), num_latents)
    estimates = compare_estimates(
        problem.log_likelihood, problem.log_joint, problem.prior, problem.mean_field, key, budget=budget
    )
    exact = problem.log_evidence
    about = {"problem": "linear-gaussian", "num_latents": num_latents}
    rows = []
    for name, estimate in estimates.items():
        row = evidence_row(name, jax.device_get(estimate))
        rows.append(about | row | {"exact": exact, "error": row["log_evidence"] - exact})
    return rows
