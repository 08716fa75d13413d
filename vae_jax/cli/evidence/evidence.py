"""`vae-jax evidence`: the log marginal likelihood by every estimator, where it is known and where it is not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.options import check_seed
from vae_jax.cli.output_folder import command_line, save_figure, staged
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.files import write_csv, write_json
from vae_jax.runtime import environment, start_jax

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.inference.evidence import Budget, EvidenceEstimate
    from vae_jax.vae.results.trained_model import TrainedModel

NUM_LATENTS = (1, 2, 5, 10, 20, 50)
MOST_LATENTS = 1_000
NUM_IMAGES = 10
NUM_CHAINS = {"problem": 256, "run": 64}

OF_A_RUN = ("num_images", "split", "checkpoint", "model_seed", "data", "data_dir")
"""Flags that a problem has no use for."""

OF_A_PROBLEM = ("problem", "num_latents", "dtype")

Row = dict[str, Any]


@dataclass(frozen=True)
class EvidenceCommand:
    """log p(x) by prior sampling, importance sampling, annealing and the importance-weighted bound.

    On a problem whose log p(x) is exact, as the number of its latents grows: x_d ~ Normal(z_d + z_{d-1} / 2, 1) is 1.5
    for each latent z_d ~ Normal(0, 1), and the proposal is the best mean-field normal. With --run, of single images
    under a trained VAE, whose encoder is the proposal. Prints a table, and saves it with its figure as evidence.json,
    evidence.csv, evidence.png (and .pdf) and config.json.
    """

    problem: Literal["linear-gaussian"] | None = None
    """linear-gaussian, which is the default."""
    folder: Annotated[Path | None, tyro.conf.arg(name="run")] = None
    """Instead of a problem, the folder of a training run."""
    num_latents: tuple[int, ...] | None = None
    """Of the problem. By default 1 2 5 10 20 50."""
    num_samples: int = 10_000
    """Of the prior, of the proposal, and of all replicates of the bound together."""
    num_bound_samples: int = 50
    """K of the importance-weighted bound."""
    num_chains: int | None = None
    """Of annealing. By default 256, or 64 an image of a run."""
    num_temperatures: int = 100
    """Of annealing, both ends included."""
    num_leapfrog_steps: int = 5
    """Of a transition between temperatures."""
    schedule: Literal["sigmoid", "linear", "geometric"] = "sigmoid"
    """How the temperatures rise."""
    start: Literal["prior", "fit"] = "prior"
    """Where annealing starts: at the prior, or at the proposal."""
    num_images: int | None = None
    """Of a run: the first so many of the split, 10 by default."""
    split: Literal["test", "validation", "train"] | None = None
    """Of a run: which images, test by default."""
    checkpoint: Literal["best", "latest"] | None = None
    """Of a run: the best by the validation ELBO, which is the default, or the latest."""
    model_seed: int | None = None
    """Of a run with several models: which, 0 by default."""
    data: str | None = None
    """Of a run: where the images are, if not where it had them."""
    data_dir: str | None = None
    """Of a run: where datasets are kept, if not where it had them."""
    seed: int = 0
    """Of the random numbers."""
    dtype: str | None = None
    """float32, which is the default, or float64."""
    out: Path = Path("vae-jax-evidence")
    """Folder for the results."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Estimates, prints and saves.

        Raises:
            Misuse: an argument that no result can be had for.
        """
        check_seed(self.seed)
        self._refuse(OF_A_RUN if self.folder is None else OF_A_PROBLEM)
        if self.folder is None:
            self._of_problem()
        else:
            self._of_run(self.folder)

    def _refuse(self, names: Sequence[str]) -> None:
        """Flags of the other kind of evidence."""
        kind, other = ("a problem", "a run") if self.folder is None else ("a run", "a problem")
        for name in names:
            if getattr(self, name) is not None:
                flag = name.replace("_", "-")
                raise Misuse(f"--{flag} must be left out of {kind}, got {getattr(self, name)}: it is of {other}")

    def _budget(self, kind: str) -> "Budget":
        from vae_jax.inference.evidence import Budget

        num_chains = NUM_CHAINS[kind] if self.num_chains is None else self.num_chains
        with refusals_are_misuse():
            return Budget(
                num_samples=self.num_samples,
                num_bound_samples=self.num_bound_samples,
                num_chains=num_chains,
                num_temperatures=self.num_temperatures,
                num_leapfrog_steps=self.num_leapfrog_steps,
                schedule=self.schedule,
                start=self.start,
            )

    def _of_problem(self) -> None:
        num_latents = NUM_LATENTS if self.num_latents is None else tuple(sorted(set(self.num_latents)))
        if not num_latents:
            raise Misuse("--num-latents must have at least one number, got none: write --num-latents 1 2 5")
        for number in num_latents:
            if not 1 <= number <= MOST_LATENTS:
                raise Misuse(f"--num-latents must be from 1 to {MOST_LATENTS:,}, got {number}: leave it out")
        dtype = "float32" if self.dtype is None else self.dtype
        start_jax(dtype, num_cpu_devices=1)
        budget = self._budget("problem")
        from vae_jax.cli.evidence.evidence_tables import print_by_latents
        from vae_jax.plotting.evidence import evidence_by_latents

        with staged(self.out) as folder, shown_steps() as on_progress:
            rows: list[Row] = []
            for place, number in enumerate(num_latents):
                on_progress("log p(x) of growing numbers of latents", place / len(num_latents))
                rows += _problem_rows(number, self.seed, budget)
            settings = {"problem": "linear-gaussian", "num_latents": num_latents, "dtype": dtype}
            self._save(folder, {"rows": rows}, settings | self._common(budget), dtype)
            save_figure(folder, "evidence", evidence_by_latents(rows))
        print_by_latents(rows, budget, self.out)

    def _of_run(self, path: Path) -> None:
        split, num_images = self.split or "test", NUM_IMAGES if self.num_images is None else self.num_images
        checkpoint, model_seed = self.checkpoint or "best", self.model_seed or 0
        if num_images < 1:
            raise Misuse(f"--num-images must be at least 1, got {num_images}: raise it")
        from vae_jax.cli.opened_runs import images_of_run
        from vae_jax.cli.trained_models import images_seen, opened_model

        start_jax("float32", num_cpu_devices=1)
        budget = self._budget("run")
        run_folder, trained = opened_model(path, checkpoint=checkpoint, model_seed=model_seed)
        from vae_jax.cli.evidence.evidence_tables import print_by_image
        from vae_jax.plotting.evidence import evidence_by_image

        images = images_of_run(run_folder, run_folder.experiment(), data=self.data, data_dir=self.data_dir)
        pixels = images_seen(trained, images, split, needed=num_images)[:num_images]
        with staged(self.out) as folder, shown_steps() as on_progress:
            rows = _image_rows(trained, pixels, self.seed, budget, on_progress=on_progress)
            about = _about(trained, split, num_images, budget)
            settings = {
                "run": path.resolve(),
                "num_images": num_images,
                "split": split,
                "checkpoint": checkpoint,
                "model_seed": model_seed,
                "data": self.data,
                "data_dir": self.data_dir,
            }
            self._save(folder, about | {"rows": rows}, settings | self._common(budget), "float32")
            save_figure(folder, "evidence", evidence_by_image(rows))
        print_by_image(rows, about, self.out)

    def _common(self, budget: "Budget") -> Row:
        return {
            "num_samples": budget.num_samples,
            "num_bound_samples": budget.num_bound_samples,
            "num_chains": budget.num_chains,
            "num_temperatures": budget.num_temperatures,
            "num_leapfrog_steps": budget.num_leapfrog_steps,
            "schedule": budget.schedule,
            "start": budget.start,
            "seed": self.seed,
        }

    def _save(self, folder: Path, content: Row, settings: Row, dtype: str) -> None:
        write_json(folder / "evidence.json", {"environment": environment(dtype, self.seed)} | content)
        write_csv(folder / "evidence.csv", content["rows"])
        line = command_line(["evidence"], settings)
        write_json(folder / "config.json", {"command": "evidence", "settings": settings, "command_line": line})


def _problem_rows(num_latents: int, seed: int, budget: "Budget") -> list[Row]:
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
        row = _row(name, jax.device_get(estimate))
        rows.append(about | row | {"exact": exact, "error": row["log_evidence"] - exact})
    return rows


def _image_rows(
    trained: "TrainedModel", pixels: "np.ndarray", seed: int, budget: "Budget", *, on_progress: Any
) -> list[Row]:
    import jax

    from vae_jax.vae.results.image_evidence import image_evidence

    task = f"log p(x) of {len(pixels):,} images"
    estimates = image_evidence(
        trained, pixels, jax.random.key(seed), budget=budget, on_progress=partial(on_progress, task)
    )
    return [
        {"image": image} | _row(name, jax.tree.map(lambda leaf, image=image: leaf[image], estimate))
        for image in range(len(pixels))
        for name, estimate in estimates.items()
    ]


def _row(name: str, estimate: "EvidenceEstimate") -> Row:
    """The fields of an estimate as numbers, with none where there is none."""
    rate = float(estimate.acceptance_rate)
    return {
        "estimator": name,
        "log_evidence": float(estimate.log_evidence),
        "log_evidence_se": float(estimate.log_evidence_se),
        "effective_sample_size": float(estimate.effective_sample_size),
        "pareto_k": float(estimate.pareto_k),
        "num_samples": int(estimate.num_samples),
        "acceptance_rate": None if math.isnan(rate) else rate,
        "reliable": bool(estimate.reliable),
        "is_lower_bound": name == "importance_weighted_bound",
    }


def _about(trained: "TrainedModel", split: str, num_images: int, budget: "Budget") -> Row:
    """What the numbers of a trained model depend on."""
    experiment = trained.experiment
    return {
        "split": split,
        "num_images": num_images,
        "likelihood": experiment.model.likelihood,
        "binarization": experiment.data.binarization,
        "binarization_seed": experiment.data.binarization_seed,
        "step": trained.step,
        "num_samples": budget.num_samples,
        "num_bound_samples": budget.num_bound_samples,
        "num_chains": budget.num_chains,
        "num_temperatures": budget.num_temperatures,
        "start": budget.start,
    }
