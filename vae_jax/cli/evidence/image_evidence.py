"""`vae-jax image-evidence`: the log evidence of single images under a trained model, by every estimator."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_jax.cli.evidence.evidence_rows import evidence_row
from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.opened_runs import first_images, opened_model
from vae_jax.cli.options import Debug, ImageOptions, ModelOptions, Out, Seed, check_options, settings_of
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.evidence_budget import Budget
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_1

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.vae.results.trained_model import TrainedModel

SAVED = ("image_evidence.json", "image_evidence.csv", "image_evidence.png", "config.json")


@dataclass(frozen=True)
class ImageEvidenceCommand:
    """Estimates log p(x) of single images under a trained VAE, by four estimators.

    The estimators are prior sampling, importance sampling, annealing and the importance-weighted bound. The proposal is
    the encoder's q(z|x). Prints a table, and saves it with its figure as image_evidence.json, image_evidence.csv,
    image_evidence.png (and .pdf) and config.json.
    """

    model: ModelOptions
    """The trained model."""
    images: ImageOptions = field(default_factory=ImageOptions)
    """The images."""
    num_images: Annotated[int, AT_LEAST_1] = 10
    """Number of images, the first of the split."""
    budget: Budget = field(default_factory=partial(Budget, num_chains=64))
    """Samples, chains and temperatures of the estimators, for each image."""
    seed: Seed = 0
    out: Out = Path("vae-jax-image-evidence")
    debug: Debug = False

    def run(self) -> None:
        """Estimates, prints and saves.

        Raises:
            Misuse: the folder holds no run, or an argument is refused.
        """
        check_options(self)
        with refusals_are_misuse():
            self.budget.check()
        start_jax("float32", num_cpu_devices=1)
        run_folder, trained = opened_model(self.model)
        pixels = first_images(run_folder, trained, self.images, self.num_images).pixels
        from vae_jax.cli.evidence.evidence_tables import print_by_image
        from vae_jax.plotting.evidence import evidence_by_image

        about = self._about(trained)
        with staged(self.out) as folder, shown_steps() as on_progress:
            rows = _rows(trained, pixels, self.seed, self.budget, on_progress=on_progress)
            save_table(folder, "image_evidence", rows, {"environment": environment("float32", self.seed)} | about)
            settings = settings_of(self) | {"run": self.model.run.resolve()}
            save_config(folder, "image-evidence", settings, positional=("run",))
            save_figure(folder, "image_evidence", evidence_by_image(rows))
        print_by_image(rows, about, self.out, SAVED)

    def _about(self, trained: "TrainedModel") -> dict[str, Any]:
        """The facts that the numbers depend on."""
        experiment = trained.experiment
        return {
            "split": self.images.split,
            "num_images": self.num_images,
            "likelihood": experiment.model.likelihood,
            "binarization": experiment.data.binarization,
            "binarization_seed": experiment.data.binarization_seed,
            "step": trained.step,
            "num_samples": self.budget.num_samples,
            "num_bound_samples": self.budget.num_bound_samples,
            "num_chains": self.budget.num_chains,
            "num_temperatures": self.budget.num_temperatures,
            "start": self.budget.start,
        }


def _rows(
    trained: "TrainedModel", pixels: "np.ndarray", seed: int, budget: Budget, *, on_progress: Any
) -> list[dict[str, Any]]:
    """A row for each image and estimator."""
    import jax

    from vae_jax.vae.results.image_evidence import image_evidence

    task = f"log p(x) of {len(pixels):,} images"
    estimates = image_evidence(
        trained, pixels, jax.random.key(seed), budget=budget, on_progress=partial(on_progress, task)
    )
    return [
        {"image": image} | evidence_row(name, jax.tree.map(lambda leaf, image=image: leaf[image], estimate))
        for image in range(len(pixels))
        for name, estimate in estimates.items()
    ]
