"""`vae-jax evaluate`: the scores of a trained model."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.progress import shown_steps
from vae_jax.cli.runs import images_of_run, opened_run, warn
from vae_jax.cli.startup import check_seed, environment, start_jax

if TYPE_CHECKING:
    from vae_jax.vae.images import ImageData
    from vae_jax.vae.trained import Trained


@dataclass(frozen=True)
class Evaluate:
    """Scores a trained model: ELBO, its terms, KL by latent, active units, likelihood by importance sampling.

    Prints the scores and saves them in the run's summary.json, or in summary_validation.json for that split.
    """

    folder: tyro.conf.Positional[Path]
    """Of the run."""
    split: Literal["test", "validation", "train"] = "test"
    """Which images."""
    num_importance_samples: int = 5000
    """k of the negative log-likelihood; 0 leaves it out."""
    num_images: int | None = None
    """Only the first so many images."""
    checkpoint: Literal["best", "latest"] = "best"
    """By the validation ELBO, or the last."""
    data: str | None = None
    """Where the images are, if not where the run had them."""
    data_dir: str | None = None
    """Where datasets are kept, if not where the run had them."""
    binarization: Literal["none", "threshold", "stochastic", "fixed"] | None = None
    """Another one than in training."""
    seed: int = 0
    """Of the draws."""
    estimate: bool = False
    """First print how long it will take."""
    debug: bool = False
    """Show the traceback of an error."""

    def run(self) -> None:
        """Scores, prints and saves.

        Raises:
            Misuse: no run, or arguments that no score can be had for.
        """
        folder, experiment = opened_run(self.folder)
        self._check()
        start_jax("float32", num_cpu_devices=1)
        import jax

        from vae_jax.cli.scores import print_kl_by_latent, print_summary, split_summary
        from vae_jax.vae.checks import check_experiment
        from vae_jax.vae.trained import load_trained

        images = images_of_run(folder, experiment, data=self.data, data_dir=self.data_dir)
        trained = load_trained(folder, which=self.checkpoint, on_damage=warn)
        if self.binarization is not None:
            data = replace(experiment.data, binarization=self.binarization)
            trained = replace(trained, experiment=replace(experiment, data=data))
            with refusals_are_misuse():
                check_experiment(trained.experiment)
        images = self._cut(images)
        summary = split_summary(trained, images, self.split, self.seed)
        if self.num_importance_samples:
            summary |= self._nll(trained, images, jax.random.key(self.seed))
        about = {"checkpoint": self.checkpoint, "evaluation": environment("float32", self.seed)}
        folder.write_summary(summary | about, self.split)
        print_summary(summary)
        print_kl_by_latent(summary)

    def _check(self) -> None:
        if self.num_importance_samples < 0:
            raise Misuse(
                f"--num-importance-samples must be at least 1, got {self.num_importance_samples}: 0 leaves the "
                "likelihood out"
            )
        if self.num_images is not None and self.num_images < 2:
            raise Misuse(f"--num-images must be at least 2, got {self.num_images}: an error needs two")
        check_seed(self.seed)

    def _cut(self, images: "ImageData") -> "ImageData":
        """The images with only the first of the split, where so many are asked for."""
        split = getattr(images, self.split)
        if len(split.images) < 2:
            raise Misuse(f"--split must have at least 2 images, got {self.split} with {len(split.images)}: try another")
        labels = None if split.labels is None else split.labels[: self.num_images]
        return replace(images, **{self.split: type(split)(split.images[: self.num_images], labels)})

    def _nll(self, trained: "Trained", images: "ImageData", key: Any) -> dict[str, Any]:
        import jax

        from vae_jax.vae.runs import visible_images
        from vae_jax.vae.summary import IMAGES_A_CALL, importance_sampled, nll_summary

        pixels = visible_images(trained.experiment, getattr(images, self.split), self.split)
        num_seeds = trained.experiment.num_seeds
        models = [trained.of_seed(seed) for seed in range(num_seeds)]
        count = self.num_importance_samples
        if self.estimate:
            importance_sampled(models[0], pixels[:IMAGES_A_CALL], key, num_importance_samples=count)
            begin = time.perf_counter()
            importance_sampled(models[0], pixels[:IMAGES_A_CALL], key, num_importance_samples=count)
            seconds = (time.perf_counter() - begin) / min(IMAGES_A_CALL, len(pixels)) * len(pixels) * num_seeds
            task = f"{len(pixels) * num_seeds:,} images at k = {count:,}"
            print(f"{task} will take about {duration(seconds)}", flush=True)
        results = []
        with shown_steps() as on_progress:
            for number, model in enumerate(models):
                task = f"likelihood of {len(pixels):,} {self.split} images" + f", seed {number}" * (num_seeds > 1)
                results.append(
                    importance_sampled(
                        model, pixels, jax.random.fold_in(key, number), num_importance_samples=count,
                        on_progress=partial(on_progress, task),
                    )
                )  # fmt: skip
        return nll_summary(results) | {"num_importance_samples": count}


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
