"""A training run in a folder: started or resumed, watched, saved, stopped.

What a run does depends on its configuration and its data alone. It may be ended between any two steps, or killed, and
resumed from its last checkpoint: every array and every metric that follows is the same, bit for bit.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.data.image_data import ImageData
from vae_jax.vae.data.visible_images import training_images, visible_images
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import EpochRow, RunFolder
from vae_jax.vae.runs.step_pacing import Pace
from vae_jax.vae.training.image_scores import Scores, make_score
from vae_jax.vae.training.many_seeds import place_by_seed, seed_keys
from vae_jax.vae.training.optimizers import learning_rate_at
from vae_jax.vae.training.training_loop import (
    TrainState,
    abstract_state,
    current_weights,
    init_state,
    make_train,
    run_keys,
)

MONITORED_IMAGES = 5000
"""Training images whose latents are watched where none are held out."""


class Diverged(RuntimeError):
    """A term of the objective, or a parameter, is not finite. One line."""


class Report(NamedTuple):
    """How far a run is."""

    epoch: int
    """The one it is in, from 1."""
    num_epochs: int
    share: float
    """Of that epoch."""
    elbo: float
    """Mean over the epoch so far, and over the seeds (nats an image); so are the next two."""
    reconstruction: float
    kl: float
    images_per_second: float
    """Of all seeds together."""
    row: EpochRow | None
    """The metrics of the epoch, if this is its end."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    finished: bool
    """Whether there is nothing left to train; else it can be resumed."""
    rows: list[EpochRow]


class Run:
    """A run of an experiment on images, in a folder.

    Args:
        experiment: what to train.
        images: on what.
        folder: where the run is kept.
        mesh: devices that seeds are sharded over.
    """

    def __init__(self, experiment: Experiment, images: ImageData, folder: RunFolder, mesh: Mesh | None = None) -> None:
        self.experiment, self.folder, self.mesh = experiment, folder, mesh
        pixels = training_images(experiment, images.train)
        self.num_images = len(pixels)
        self.steps_per_epoch = experiment.training.steps_per_epoch(self.num_images)
        self.key = place_by_seed(seed_keys(jax.random.key(experiment.seed), experiment.num_seeds), mesh)
        self._init = lambda: init_state(experiment, pixels, images.shape, self.key)
        self._like = abstract_state(experiment, len(pixels), images.shape)
        self._train = make_train(experiment, pixels, images.shape, mesh=mesh)
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.has_validation = len(images.validation.images) > 0
        watched = (
            visible_images(experiment, images.validation, "validation")
            if self.has_validation
            else visible_images(experiment, images.train, "train")[:MONITORED_IMAGES]
        )
        architecture = Architecture.of(experiment, images.shape)
        self._score = make_score(architecture, watched, num_seeds=experiment.num_seeds, mesh=mesh)

    def start(self) -> TrainState:
        """The state before the first step; metrics of an attempt that came to no checkpoint are dropped."""
        self.folder.keep_rows([])
        return place_by_seed(self._init(), self.mesh)

    def resume(self, on_damage: Callable[[str], None]) -> TrainState:
        """The state of the latest undamaged checkpoint; the metrics of later epochs are dropped.

        Raises:
            CheckpointError: there is none.
        """
        restored = self.checkpoints.restore_latest(self._like, on_damage=on_damage)
        # An epoch's metrics are written before any checkpoint that lies beyond it.
        done = restored.step // self.steps_per_epoch
        self.folder.keep_rows(self.folder.rows()[:done])
        return place_by_seed(restored.state, self.mesh)

    def train(
        self,
        state: TrainState,
        *,
        stop_after: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        on_report: Callable[[Report], None] = lambda _: None,
        seconds_between_checkpoints: float = 10.0,
    ) -> Outcome:
        """Trains to the end of the run or to where it is told to stop, and saves.

        Args:
            state: from `start` or `resume`; it is used up.
            stop_after: the number of epochs, counted from the start of the run, after which it stops.
            should_stop: asked about once a second.
            on_report: told about as often.
            seconds_between_checkpoints: the most that a kill can cost.

        Raises:
            Diverged: a term or a parameter is not finite. The last good checkpoint is left, if there is one.
            CheckpointError: a checkpoint cannot be saved.
        """
        with contextlib.ExitStack() as however_it_ends:
            however_it_ends.callback(self.folder.write_csv)
            return self._train_on(state, stop_after, should_stop, on_report, seconds_between_checkpoints)

    def _train_on(
        self,
        state: TrainState,
        stop_after: int | None,
        should_stop: Callable[[], bool],
        on_report: Callable[[Report], None],
        seconds_between_checkpoints: float,
    ) -> Outcome:
        last_epoch = min(stop_after or math.inf, self.experiment.training.num_epochs)
        rows = self.folder.rows()
        step = self._step(state)
        saver = _Saver(self, seconds_between_checkpoints, best=best_row(rows), step=step)
        pace = Pace(self.steps_per_epoch)
        while step < last_epoch * self.steps_per_epoch and not self._is_early(rows) and not should_stop():
            epoch, batch = divmod(step, self.steps_per_epoch)
            num_steps = pace.num_steps(batch)
            state = self._train(self.key, state, num_steps)
            step += num_steps
            self._check(state)
            pace.add(num_steps)
            row = None
            if step % self.steps_per_epoch == 0:
                row = self._row(state, epoch + 1, pace)
                self.folder.append_row(row)
                rows.append(row)
                saver.note(state, step, row)
            saver.save_if_due(state, step)
            on_report(self._report(state, epoch + 1, (batch + num_steps) / self.steps_per_epoch, pace, row))
        saver.save(state, step)
        finished = step >= self.experiment.training.num_epochs * self.steps_per_epoch or self._is_early(rows)
        return Outcome(finished, rows)

    def _step(self, state: TrainState) -> int:
        return int(np.ravel(jax.device_get(state.step))[0])

    def _check(self, state: TrainState) -> None:
        """Raises Diverged for the first seed with something that is not finite."""
        failure, finite = jax.device_get((state.failure, _all_finite(state.learned, self.experiment.num_seeds)))
        for seed in range(self.experiment.num_seeds):
            step, *terms = (float(np.ravel(leaf)[seed]) for leaf in (failure.step, *failure.terms))
            if step >= 0:
                named = dict(zip(failure.terms._fields, terms, strict=True))
                # The objective and the ELBO are made of the other two.
                name = next(n for n in ("reconstruction", "kl", "elbo", "objective") if not math.isfinite(named[n]))
                raise Diverged(self._message(f"the {name} was {named[name]}", int(step), seed))
            if not np.ravel(finite)[seed]:
                raise Diverged(self._message("a parameter was not finite", self._step(state) - 1, seed))

    def _message(self, what: str, step: int, seed: int) -> str:
        epoch, batch = divmod(step, self.steps_per_epoch)
        which = f" of seed {seed}" if self.experiment.num_seeds > 1 else ""
        return (
            f"{what} by step {step + 1}{which} (epoch {epoch + 1}, batch {batch + 1} of {self.steps_per_epoch}): lower "
            f"the learning rate or clip the gradient, and train anew; {self._kept()}"
        )

    def _kept(self) -> str:
        """What is left of a run that diverged."""
        steps = self.checkpoints.steps()
        if not steps:
            return "no checkpoint had been saved"
        return f"the checkpoint of step {steps[-1]} is kept, but resumed from it the run would come to the same"

    def _is_early(self, rows: list[EpochRow]) -> bool:
        """Whether the validation ELBO has not risen for as long as the patience."""
        patience, best = self.experiment.training.patience, best_row(rows)
        return patience is not None and best is not None and rows[-1]["epoch"] - best["epoch"] >= patience

    def _row(self, state: TrainState, epoch: int, pace: "Pace") -> EpochRow:
        experiment = self.experiment
        scores = self._score(_evaluation_keys(self.key, experiment.num_seeds), state.learned.model)
        row: EpochRow = {"epoch": epoch, "step": epoch * self.steps_per_epoch}
        row |= {f"train_{name}": values(total / self.num_images) for name, total in state.sums._asdict().items()}
        row |= _validation_metrics(scores if self.has_validation else None)
        if not np.all(np.isfinite(row["validation_elbo"] or 0)):
            raise Diverged(self._message("the validation ELBO was not finite", row["step"] - 1, 0))
        row["active_units"] = values(scores.active.sum(-1))
        beta, alpha = current_weights(experiment, state.learned, row["step"] - 1, self.steps_per_epoch)
        row |= {"beta": values(beta), "alpha": values(alpha)}
        row["learning_rate"] = learning_rate_at(experiment.training, row["step"] - 1, self.steps_per_epoch)
        row |= {"seconds": pace.seconds_of_epoch(), "images_per_second": pace.steps_per_second * self._images_a_step()}
        return row

    def _images_a_step(self) -> float:
        """Images of an average step, of all seeds together."""
        return self.num_images / self.steps_per_epoch * self.experiment.num_seeds

    def _report(self, state: TrainState, epoch: int, share: float, pace: "Pace", row: EpochRow | None) -> Report:
        seen = min(share * self.steps_per_epoch * self.experiment.training.batch_size, self.num_images)
        elbo, reconstruction, kl = (
            float(np.mean(jax.device_get(total))) / seen
            for total in (state.sums.elbo, state.sums.reconstruction, state.sums.kl)
        )
        speed = pace.steps_per_second * self._images_a_step()
        return Report(epoch, self.experiment.training.num_epochs, share, elbo, reconstruction, kl, speed, row)


def best_row(rows: list[EpochRow]) -> EpochRow | None:
    """The epoch of the highest validation ELBO, averaged over the seeds; None without one."""
    scored = [row for row in rows if row["validation_elbo"] is not None]
    return max(scored, key=lambda row: np.mean(row["validation_elbo"]), default=None)


def values(array: Any) -> Any:
    """A metric as JSON holds it: a number, or a list with one for each seed."""
    return np.asarray(jax.device_get(array)).tolist()


def _validation_metrics(scores: Scores | None) -> EpochRow:
    names = ("elbo", "elbo_se", "reconstruction", "kl")
    if scores is None:
        return {f"validation_{name}": None for name in names}
    num_images = scores.elbo.shape[-1]
    elbo_se = scores.elbo.std(-1, ddof=1) / math.sqrt(num_images)
    found = (scores.elbo.mean(-1), elbo_se, scores.reconstruction.mean(-1), scores.kl.mean(-1))
    return {f"validation_{name}": values(value) for name, value in zip(names, found, strict=True)}


def _evaluation_keys(key: Array, num_seeds: int) -> Array:
    return run_keys(key).evaluation if num_seeds == 1 else jax.vmap(lambda each: run_keys(each).evaluation)(key)


def _all_finite(tree: Any, num_seeds: int) -> Array:
    """Whether every number is finite, of each seed."""
    leaves = [jnp.isfinite(leaf).reshape(num_seeds, -1).all(axis=1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all(axis=0)


class _Saver:
    """Saves the latest state from time to time, and the best with it."""

    def __init__(self, run: Run, seconds: float, best: EpochRow | None, step: int) -> None:
        self.checkpoints, self.seconds = run.checkpoints, seconds
        self.best_score = -math.inf if best is None else float(np.mean(best["validation_elbo"]))
        self.unsaved_best: tuple[int, TrainState] | None = None
        # A checkpoint that the run is resumed from has its score; saved again it would have none.
        self.saved_step = step if step in self.checkpoints.steps() else None
        self.saved_at = time.monotonic()
        self.scores: dict[int, float] = {}

    def note(self, state: TrainState, step: int, row: EpochRow) -> None:
        """Remembers the state of an epoch's end if it is the best so far. The state itself is used up by training."""
        if row["validation_elbo"] is None:
            return
        self.scores = {step: float(np.mean(row["validation_elbo"]))}
        if self.scores[step] > self.best_score:
            self.best_score, self.unsaved_best = self.scores[step], (step, jax.device_get(state))

    def save_if_due(self, state: TrainState, step: int) -> None:
        """Saves if the last time is long enough ago."""
        if time.monotonic() - self.saved_at >= self.seconds:
            self.save(state, step)

    def save(self, state: TrainState, step: int) -> None:
        """Saves the best state that is not saved yet, and this one."""
        if self.unsaved_best is not None and self.unsaved_best[0] != step:
            best_step, best_state = self.unsaved_best
            self.checkpoints.save(best_step, best_state, score=self.best_score)
        if step != self.saved_step:
            self.checkpoints.save(step, state, score=self.scores.get(step))
        self.unsaved_best, self.saved_step, self.saved_at = None, step, time.monotonic()
