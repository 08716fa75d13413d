"""Metrics of a training run: a row at the end of each epoch, and reports between."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from vae_jax.statistics import mean_se
from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.data.image_data import ImageData
from vae_jax.vae.data.visible_images import visible_images
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.runs.run_folder import EpochRow
from vae_jax.vae.runs.step_pacing import Pace
from vae_jax.vae.training.image_scores import Scores, make_score
from vae_jax.vae.training.many_seeds import SeedKeys
from vae_jax.vae.training.optimizers import learning_rate_at
from vae_jax.vae.training.training_loop import TrainState, current_weights, run_keys

MONITORED_IMAGES = 5000
"""Training images that latents are watched on where no images are held out."""


class Report(NamedTuple):
    """Progress of a training run."""

    epoch: int
    """The epoch that the run is in, from 1."""
    num_epochs: int
    share: float
    """Fraction of that epoch that is done, from 0 to 1."""
    elbo: float
    """Mean over the epoch so far, and over the seeds (nats per image); so are the next two."""
    reconstruction: float
    kl: float
    images_per_second: float
    """Training images a second, of all seeds together."""
    row: EpochRow | None
    """The metrics of the epoch, if this is its end."""


class TrainingMetrics:
    """The metrics of a run, measured on its states.

    Args:
        experiment: what is trained.
        images: what it is trained on.
        keys: the key of the run; with several seeds, the keys of the runs [S].
        mesh: devices that seeds are sharded over.
    """

    def __init__(self, experiment: Experiment, images: ImageData, keys: SeedKeys, mesh: Mesh | None = None) -> None:
        self.experiment = experiment
        self.num_images = len(images.train.images)
        self.steps_per_epoch = experiment.training.steps_per_epoch(self.num_images)
        self.has_validation = len(images.validation.images) > 0
        watched = (
            visible_images(experiment, images.validation, "validation")
            if self.has_validation
            else visible_images(experiment, images.train, "train")[:MONITORED_IMAGES]
        )
        architecture = Architecture.of(experiment, images.shape)
        self._score = make_score(architecture, watched, num_seeds=experiment.num_seeds, mesh=mesh)
        self._score_keys = _evaluation_keys(keys, experiment.num_seeds)

    def row(self, state: TrainState, step: int, pace: Pace) -> EpochRow:
        """The metrics of the epoch that a step ended."""
        scores = self._score(self._score_keys, state.learned.model)
        row: EpochRow = {"epoch": step // self.steps_per_epoch, "step": step}
        row |= {f"train_{name}": as_json(total / self.num_images) for name, total in state.sums._asdict().items()}
        row |= _validation_metrics(scores if self.has_validation else None)
        row["active_units"] = as_json(scores.active.sum(-1))
        beta, alpha = current_weights(self.experiment, state.learned, step - 1, self.steps_per_epoch)
        row |= {"beta": as_json(beta), "alpha": as_json(alpha)}
        row["learning_rate"] = learning_rate_at(self.experiment.training, step - 1, self.steps_per_epoch)
        row |= {"seconds": pace.seconds_of_epoch(), "images_per_second": self._images_per_second(pace)}
        return row

    def report(self, state: TrainState, step: int, pace: Pace, row: EpochRow | None) -> Report:
        """The progress of the run after a step."""
        epoch, batch = divmod(step - 1, self.steps_per_epoch)
        num_seen = min((batch + 1) * self.experiment.training.batch_size, self.num_images)
        elbo, reconstruction, kl = (
            float(np.mean(jax.device_get(total))) / num_seen
            for total in (state.sums.elbo, state.sums.reconstruction, state.sums.kl)
        )
        share, num_epochs = (batch + 1) / self.steps_per_epoch, self.experiment.training.num_epochs
        return Report(epoch + 1, num_epochs, share, elbo, reconstruction, kl, self._images_per_second(pace), row)

    def _images_per_second(self, pace: Pace) -> float:
        images_a_step = self.num_images / self.steps_per_epoch * self.experiment.num_seeds
        return pace.steps_per_second * images_a_step


def best_row(rows: list[EpochRow]) -> EpochRow | None:
    """The epoch of the highest validation ELBO, averaged over the seeds; None without one."""
    scored = [row for row in rows if row["validation_elbo"] is not None]
    return max(scored, key=lambda row: np.mean(row["validation_elbo"]), default=None)


def as_json(array: Any) -> Any:
    """A metric as JSON holds it: a number, or a list with one for each seed."""
    return np.asarray(jax.device_get(array)).tolist()


def _validation_metrics(scores: Scores | None) -> EpochRow:
    names = ("elbo", "elbo_se", "reconstruction", "kl")
    if scores is None:
        return {f"validation_{name}": None for name in names}
    found = (scores.elbo.mean(-1), mean_se(scores.elbo), scores.reconstruction.mean(-1), scores.kl.mean(-1))
    return {f"validation_{name}": as_json(value) for name, value in zip(names, found, strict=True)}


def _evaluation_keys(keys: SeedKeys, num_seeds: int) -> Array:
    return run_keys(keys).evaluation if num_seeds == 1 else jax.vmap(lambda each: run_keys(each).evaluation)(keys)
