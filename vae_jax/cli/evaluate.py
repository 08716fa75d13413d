"""`vae-jax evaluate`: the scores of a trained model."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.number_formats import duration
from vae_jax.cli.opened_runs import images_of_run, opened_run, warn
from vae_jax.cli.options import Checkpoint, Data, DataDir, Debug, RunPath, Seed, Split, check_options, optional
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_0, AT_LEAST_2
from vae_jax.vae.config.experiment import Binarization, Experiment
from vae_jax.vae.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.results.trained_model import TrainedModel


@dataclass(frozen=True)
class EvaluateCommand:
    """Scores a trained model: ELBO, its terms, KL by latent, active units, likelihood by importance sampling.

    Prints the scores. Those of all test images, binarized as in training, are saved in the run's summary.json, and
    those of another split in summary_validation.json or summary_train.json. All others (fewer or other images, fewer
    importance samples, another binarization, seed or checkpoint) are added to evaluations.jsonl instead.
    """

    folder: RunPath
    split: Split = "test"
    num_importance_samples: Annotated[int, AT_LEAST_0] = 5000
    """Importance samples of each image for its likelihood. 0 leaves the likelihood out."""
    num_images: Annotated[int | None, AT_LEAST_2, optional("INT")] = None
    """Number of images to score, the first of the split. By default all."""
    checkpoint: Checkpoint = "best"
    data: Data = None
    data_dir: DataDir = None
    binarization: Annotated[Binarization | None, optional("{none,threshold,stochastic,fixed}")] = None
    """Binarization of the images. By default as in training."""
    seed: Seed = 0
    estimate: bool = False
    """First print how long the likelihood will take."""
    debug: Debug = False

    def run(self) -> None:
        """Scores, prints and saves.

        Raises:
            Misuse: no run, a number out of its range, or images that cannot be scored.
        """
        check_options(self)
        folder, experiment = opened_run(self.folder)
        start_jax("float32", num_cpu_devices=1)
        import jax

        from vae_jax.cli.score_tables import print_kl_by_latent, print_summary, split_summary
        from vae_jax.vae.results.trained_model import load_trained
        from vae_jax.vae.training.experiment_checks import check_experiment

        images = images_of_run(folder, experiment, data=self.data, data_dir=self.data_dir)
        trained = load_trained(folder, which=self.checkpoint, on_damage=warn)
        if self.binarization is not None:
            data = replace(experiment.data, binarization=self.binarization)
            trained = replace(trained, experiment=replace(experiment, data=data))
            with refusals_are_misuse():
                check_experiment(trained.experiment)
        departures = self._departures(folder, experiment, images)
        images = self._cut(images)
        if self.num_importance_samples and self.estimate:
            self._print_estimate(trained, images)
        summary = split_summary(trained, images, self.split, self.seed)
        if self.num_importance_samples:
            summary |= self._nll(trained, images, jax.random.key(self.seed))
        about = {"checkpoint": self.checkpoint, "evaluation": environment("float32", self.seed)}
        where = self._save(folder, summary | about, departures, images.source)
        print_summary(summary)
        print_kl_by_latent(summary)
        print_saved_scores(where)

    def _cut(self, images: "ImageData") -> "ImageData":
        """The images with only the first of the split, where so many are asked for."""
        split = getattr(images, self.split)
        if len(split.images) < 2:
            raise Misuse(f"--split must have at least 2 images, got {self.split} with {len(split.images)}: try another")
        labels = None if split.labels is None else split.labels[: self.num_images]
        return replace(images, **{self.split: type(split)(split.images[: self.num_images], labels)})

    def _departures(self, folder: RunFolder, experiment: Experiment, images: "ImageData") -> list[str]:
        """The reasons why these scores are not the ones that runs are compared by: of a whole split, as in training."""
        from vae_jax.cli.score_tables import SCORE_SEED

        trained_on, rule = folder.read_config()["images"]["checksum"], experiment.data.binarization
        num_images = len(getattr(images, self.split).images)
        size = min(self.num_images or num_images, num_images)
        departs = {
            "other images": images.checksum != trained_on,
            f"{size:,} of {num_images:,} images": size < num_images,
            f"--binarization {self.binarization}": self.binarization not in (None, rule),
            f"--checkpoint {self.checkpoint}": self.checkpoint != "best",
            f"--seed {self.seed}": self.seed != SCORE_SEED,
        }
        return [name for name, does in departs.items() if does]

    def _save(self, folder: RunFolder, summary: dict[str, Any], departures: list[str], source: str) -> str:
        """Saves the scores where they belong, and says where that is."""
        from vae_jax.vae.results.score_summary import add_evaluation, likelihood_before

        file = folder.summary_path(self.split)
        before = {} if departures else likelihood_before(folder, summary, on_damage=warn)
        size, size_before = self.num_importance_samples, before.get("num_importance_samples", 0)
        if 0 < size < size_before:
            departures = [f"k = {size:,}, below its {size_before:,}"]
        if departures:
            add_evaluation(folder, summary | {"source": source, "departures": departures})
            return f"Added to {folder.path / 'evaluations.jsonl'}, not to {file.name}: {', '.join(departures)}"
        if size == 0:
            summary = summary | before
        folder.write_summary(summary, self.split)
        return f"Saved in {file}" + f", which keeps its NLL (k = {size_before:,})" * (size == 0 < size_before)

    def _print_estimate(self, trained: "TrainedModel", images: "ImageData") -> None:
        from vae_jax.vae.results.image_likelihood import importance_sampling_seconds

        pixels = self._pixels(trained, images)
        size, num_seeds = self.num_importance_samples, trained.experiment.num_seeds
        seconds = num_seeds * importance_sampling_seconds(trained.of_seed(0), pixels, num_importance_samples=size)
        task = f"the likelihood of {len(pixels) * num_seeds:,} images at k = {size:,}"
        print(f"{task} will take about {duration(seconds)}", flush=True)

    def _pixels(self, trained: "TrainedModel", images: "ImageData") -> "np.ndarray":
        from vae_jax.vae.data.visible_images import visible_images

        return visible_images(trained.experiment, getattr(images, self.split), self.split)

    def _nll(self, trained: "TrainedModel", images: "ImageData", key: Any) -> dict[str, Any]:
        import jax

        from vae_jax.vae.results.image_likelihood import model_log_evidence
        from vae_jax.vae.results.score_summary import nll_summary

        pixels = self._pixels(trained, images)
        size, num_seeds = self.num_importance_samples, trained.experiment.num_seeds
        results = []
        with shown_steps() as on_progress:
            for number in range(num_seeds):
                task = f"likelihood of {len(pixels):,} {self.split} images" + f", seed {number}" * (num_seeds > 1)
                results.append(
                    model_log_evidence(
                        trained.of_seed(number), pixels, jax.random.fold_in(key, number), num_importance_samples=size,
                        on_progress=partial(on_progress, task),
                    )
                )  # fmt: skip
        return nll_summary(results) | {"num_importance_samples": size}


def print_saved_scores(line: str) -> None:
    """Says where the scores are, for a terminal of 80 columns."""
    from rich.console import Console

    Console(highlight=False).print(line, markup=False)
