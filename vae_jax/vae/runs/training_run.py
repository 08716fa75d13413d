"""A training run in a folder: started or resumed, watched, saved, stopped.

The numbers of a run depend on its configuration and its data alone. It may be ended between any two steps, or killed,
and resumed from its last checkpoint: every array and every metric that follows is the same, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.data.image_data import ImageData
from vae_jax.vae.data.visible_images import training_images
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.divergence_watch import DivergenceWatch
from vae_jax.vae.runs.periodic_checkpoints import PeriodicCheckpoints
from vae_jax.vae.runs.run_folder import EpochRow, RunFolder
from vae_jax.vae.runs.step_pacing import Pace
from vae_jax.vae.runs.training_metrics import Report, TrainingMetrics, best_row
from vae_jax.vae.training.many_seeds import place_by_seed, seed_keys
from vae_jax.vae.training.training_loop import TrainState, abstract_state, init_state, make_train, steps_done


@dataclass(frozen=True)
class TrainingOutcome:
    """Outcome of `Run.train`: whether the run is finished, and its metrics."""

    finished: bool
    """Whether there is nothing left to train. If not, the run can be resumed."""
    rows: list[EpochRow]


class Run:
    """Training run of an experiment on images, kept in a folder.

    Args:
        experiment: the experiment to run.
        images: images to train on.
        folder: folder of the run.
        mesh: devices that seeds are sharded over.

    Example:
        A run that is stopped, here before its first step, leaves a checkpoint and can be resumed:

        >>> import tempfile
        >>> from pathlib import Path
        >>> from vae_jax.vae import DataConfig, Experiment, ModelConfig, Run, RunFolder, load_images
        >>> experiment = Experiment(DataConfig("digits"), ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> with tempfile.TemporaryDirectory() as path:
        ...     run = Run(experiment, load_images("digits"), RunFolder(Path(path)))
        ...     outcome = run.train(run.start(), should_stop=lambda: True)
        ...     state = run.resume(on_damage=print)
        >>> outcome.finished, state.step.item()
        (False, 0)
    """

    def __init__(self, experiment: Experiment, images: ImageData, folder: RunFolder, mesh: Mesh | None = None) -> None:
        self.experiment, self.folder, self.mesh = experiment, folder, mesh
        pixels = training_images(experiment, images.train)
        self.num_images = len(pixels)
        self.steps_per_epoch = experiment.training.steps_per_epoch(self.num_images)
        self.key = place_by_seed(seed_keys(jax.random.key(experiment.seed), experiment.num_seeds), mesh)
        self._init = lambda: init_state(experiment, pixels, images.shape, self.key)
        self._like = abstract_state(experiment, self.num_images, images.shape)
        self._train = make_train(experiment, pixels, images.shape, mesh=mesh)
        self._metrics = TrainingMetrics(experiment, images, self.key, mesh)
        self.checkpoints = Checkpoints(folder.checkpoints)

    def start(self) -> TrainState:
        """Makes the state before the first step, and drops the metrics of an attempt without a checkpoint."""
        self.folder.keep_rows([])
        return place_by_seed(self._init(), self.mesh)

    def resume(self, on_damage: Callable[[str], None]) -> TrainState:
        """Restores the state of the latest undamaged checkpoint, and drops the metrics of later epochs.

        Args:
            on_damage: called with a line for each damaged checkpoint that is skipped.

        Raises:
            CheckpointError: no checkpoint can be restored.
            NoRun: the configuration or the metrics are not those that the checkpoint was saved with.
            OtherSchema: another version of the library wrote the checkpoint.
        """
        restored = self.checkpoints.restore_latest(self._like, on_damage=on_damage)
        self.folder.check_facts(restored.about, self.experiment, restored.step)
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
    ) -> TrainingOutcome:
        """Trains to the end of the run, or until it is stopped, and saves a checkpoint.

        Args:
            state: state from `start` or `resume`; it is used up.
            stop_after: number of epochs, counted from the start of the run, after which it stops.
            should_stop: called about once a second; the run stops where it returns True.
            on_report: called about once a second with the progress.
            seconds_between_checkpoints: longest training time (s) that is lost if the process is killed.

        Returns:
            Whether the run is finished, and the metrics of its epochs.

        Raises:
            Diverged: a term or a parameter is not finite. The last good checkpoint is left, if there is one.
            CheckpointError: a checkpoint cannot be saved, or the disk has no room for one.
        """
        self.checkpoints.check_space(self._like)
        rows, step, num_epochs = self.folder.rows(), steps_done(state), self.experiment.training.num_epochs
        last_step = self.steps_per_epoch * min(stop_after or num_epochs, num_epochs)
        periodic = PeriodicCheckpoints(
            self.checkpoints, seconds_between_checkpoints, best=best_row(rows), step=step, facts=self._facts
        )
        watch = DivergenceWatch(self.checkpoints, self.steps_per_epoch, self.experiment.num_seeds)
        pace = Pace(self.steps_per_epoch)
        try:
            while step < last_step and not self._is_out_of_patience(rows) and not should_stop():
                num_steps = pace.num_steps(step % self.steps_per_epoch)
                state = self._train(self.key, state, num_steps)
                step += num_steps
                watch.check_state(state)
                pace.add(num_steps)
                row = None
                if step % self.steps_per_epoch == 0:
                    row = self._metrics.row(state, step, pace)
                    watch.check_validation(row)
                    self.folder.append_row(row)
                    rows.append(row)
                    periodic.note(state, step, row)
                periodic.save_if_due(state, step)
                on_report(self._metrics.report(state, step, pace, row))
            periodic.save(state, step)
        finally:
            self.folder.write_csv()
        finished = step >= self.steps_per_epoch * num_epochs or self._is_out_of_patience(rows)
        return TrainingOutcome(finished, rows)

    def _facts(self, step: int) -> dict[str, Any]:
        return self.folder.facts(self.experiment, step // self.steps_per_epoch)

    def _is_out_of_patience(self, rows: list[EpochRow]) -> bool:
        """Whether the validation ELBO has not risen for as long as the patience."""
        patience, best = self.experiment.training.patience, best_row(rows)
        return patience is not None and best is not None and rows[-1]["epoch"] - best["epoch"] >= patience
