"""`vae-jax train`: a VAE, from images to pictures."""

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.opened_runs import loaded_images, warn
from vae_jax.cli.options import Debug, optional
from vae_jax.cli.stop_signals import Stopped, stop_requests
from vae_jax.cli.train.experiment_flags import check_resumable, train_command_line
from vae_jax.cli.train.preset_help import described_presets
from vae_jax.cli.train.tensorboard import check_tensorboard, event_writer
from vae_jax.files import UNFINISHED, FolderInUse, locked, new_folders, remove_abandoned
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_0, AT_LEAST_1, check_settings, check_settings_are_used, flag_of
from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.config.presets import DEFAULT_PRESET, PRESETS
from vae_jax.vae.config.setting_conflicts import check_settings_agree
from vae_jax.vae.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.runs.training_metrics import Report
    from vae_jax.vae.runs.training_run import TrainingOutcome

DEFAULT_OUT = Path("vae-jax-train")
PRESETS_HELP = f"By default {DEFAULT_PRESET}. One of\n{described_presets()}"


@dataclass(frozen=True)
class TrainCommand:
    """Trains a VAE and scores it on the test images.
    - The name of a preset comes right after the word train; flags change its settings.
    - The folder --out gets config.json, metrics.jsonl, metrics.csv, summary.json, checkpoints/ and figures/.
    - Ctrl-C saves the run, and --resume continues it.
    """

    experiment: Experiment = field(default_factory=Experiment)
    """The settings of the preset, and changes to them."""
    preset: tyro.conf.Suppress[str] = DEFAULT_PRESET
    """The preset that the experiment started from."""
    misplaced: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="[PRESET]", help=PRESETS_HELP, help_behavior_hint="")
    ] = ""
    """A preset, or any other word, that comes later than right after the command."""
    resume: Annotated[Path | None, optional("PATH")] = None
    """Folder of a run to continue, with its own settings. Only --num-epochs may grow, unless a schedule depends on it,
    and --data and --data-dir may change."""
    stop_after: Annotated[int | None, AT_LEAST_1, optional("INT")] = None
    """Stop after this epoch, counted from the start of the run. The run is saved, and --resume continues it."""
    seconds_between_checkpoints: Annotated[float, AT_LEAST_0] = 10.0
    """Seconds between saves: the most training that is lost if the run is killed."""
    tensorboard: bool = False
    """Write events for TensorBoard too; needs the extra tensorboard."""
    out: Annotated[Path | None, optional("PATH")] = None
    """Folder for the run. By default vae-jax-train."""
    debug: Debug = False

    def run(self) -> None:
        """Trains, scores, draws.

        Raises:
            Misuse: arguments that exclude each other, or that no experiment can have.
            Stopped: asked to, by the user or the system; the run is saved.
        """
        folder = RunFolder(self.resume or self.out or DEFAULT_OUT)
        self._check(folder)
        self._check_settings()
        with claimed(folder):
            # Another process may have begun there since.
            self._check(folder)
            self._run_in(folder)

    def _run_in(self, folder: RunFolder) -> None:
        experiment = self.experiment
        start_jax("float32", num_cpu_devices=None if experiment.num_seeds > 1 else 1)
        from vae_jax.vae.training.experiment_checks import check_estimator, check_image_shape

        with refusals_are_misuse():
            check_estimator(experiment.objective)
        images = loaded_images(experiment.data)
        check_sizes(images)
        with refusals_are_misuse():
            check_image_shape(experiment.model, images.shape)
        self._configure(folder, images)
        outcome = self._train(folder, images)
        if not outcome.finished:
            print(f"stopped after {len(outcome.rows)} epochs: {_continuing(folder)}")
            return
        self._conclude(folder, images)

    def _check(self, folder: RunFolder) -> None:
        if self.misplaced and self.resume is not None:
            raise Misuse(f"a preset must be left out of a run that is resumed, got {self.misplaced}: leave it out")
        if self.misplaced:
            raise Misuse(
                f"a preset must come right after the word train, got {self.misplaced} later: write vae-jax train "
                "PRESET and then the flags"
            )
        if self.resume is None and folder.is_run:
            _check_is_unused(folder)
        if self.tensorboard:
            check_tensorboard()
        if self.resume is not None and self.out is not None:
            raise Misuse(f"--out must be left out of a run that is resumed, got {self.out}: it continues in its folder")
        if self.resume is not None:
            with refusals_are_misuse():
                check_resumable(folder.experiment(), self.experiment)

    def _check_settings(self) -> None:
        """Refuses settings by all rules that need no JAX, which takes seconds to start."""
        with refusals_are_misuse():
            check_settings(self, named=flag_of)
            check_settings_agree(self.experiment)
            if self.resume is None:
                check_settings_are_used(self.experiment, before=PRESETS[self.preset], named=flag_of)

    def _configure(self, folder: RunFolder, images: "ImageData") -> None:
        """Writes the configuration of the run, or checks that a resumed run has the same images."""
        facts = {
            "name": images.name, "source": images.source, "checksum": images.checksum, "shape": images.shape,
            "num_train": len(images.train.images), "num_validation": len(images.validation.images),
            "num_test": len(images.test.images), "num_classes": images.num_classes,
        }  # fmt: skip
        if self.resume is not None:
            with refusals_are_misuse():
                before = folder.image_facts()
            if before["checksum"] != facts["checksum"]:
                raise Misuse(
                    f"the images must be those that the run began with ({before['source']}), got others from "
                    f"{images.source}: restore them, or train anew"
                )
            facts = before
        experiment = self._located()
        about = {
            "command": "train",
            "preset": self.preset,
            "command_line": train_command_line(self.preset, experiment),
            "images": facts,
            "environment": environment("float32", self.experiment.seed),
        }
        try:
            folder.write_config(experiment, about)
        except OSError as error:
            raise Misuse(
                f"--out must be a folder that can be written to, got {folder.path}: {error.strerror}"
            ) from error

    def _located(self) -> Experiment:
        """The experiment with its images named so that they are found from any folder."""
        from vae_jax.vae.data.datasets import located

        config = self.experiment.data
        data_dir = None if config.data_dir is None else str(Path(config.data_dir).expanduser().resolve())
        return replace(self.experiment, data=replace(config, data=located(config.data, data_dir), data_dir=data_dir))

    def _train(self, folder: RunFolder, images: "ImageData") -> "TrainingOutcome":
        from vae_jax.cli.train.training_progress import shown_training
        from vae_jax.vae.runs.training_run import Run
        from vae_jax.vae.training.many_seeds import seed_mesh

        experiment = self.experiment
        mesh = seed_mesh(experiment.num_seeds) if experiment.num_seeds > 1 else None
        with contextlib.ExitStack() as watched:
            should_stop = watched.enter_context(stop_requests())
            run = Run(experiment, images, folder, mesh)
            # Damaged checkpoints are reported; they are no reason to begin anew.
            with refusals_are_misuse():
                state = run.resume(warn) if self.resume is not None and _is_saved(folder) else run.start()
            done = len(folder.rows())
            show = watched.enter_context(shown_training(experiment.training.num_epochs, done))
            write = watched.enter_context(event_writer(folder.path / "events", done)) if self.tensorboard else None

            def on_report(report: "Report") -> None:
                show(report)
                if write is not None and report.row is not None:
                    write(report.row)

            outcome = run.train(
                state,
                stop_after=self.stop_after,
                should_stop=should_stop,
                on_report=on_report,
                seconds_between_checkpoints=self.seconds_between_checkpoints,
            )
        if should_stop() and not outcome.finished:
            raise Stopped(f"stopped and saved: {_continuing(folder)}")
        return outcome

    def _conclude(self, folder: RunFolder, images: "ImageData") -> None:
        """Scores the best model on the test images, and draws."""
        from vae_jax.cli.plot import save_figures
        from vae_jax.cli.score_tables import print_summary, split_summary
        from vae_jax.vae.results.score_summary import likelihood_before
        from vae_jax.vae.results.trained_model import load_trained

        trained = load_trained(folder, on_damage=warn)
        summary = split_summary(trained, images, "test") | {"checkpoint": "best"}
        folder.write_summary(summary | likelihood_before(folder, summary, on_damage=warn))
        save_figures(folder, trained, images)
        print_summary(summary)
        print(f"Saved in {folder.path}: configuration, metrics, summary, checkpoints, figures")


@contextlib.contextmanager
def claimed(folder: RunFolder) -> Iterator[None]:
    """Keeps the folder of a run from other processes, and removes what a killed one left unfinished.

    Raises:
        Misuse: another process has it, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(new_folders(folder.path))
            stack.enter_context(locked(folder.path))
        except FolderInUse as error:
            raise Misuse(str(error)) from error
        except OSError as error:
            raise Misuse(
                f"--out must be a folder that can be written to, got {folder.path}: {error.strerror}"
            ) from error
        remove_abandoned(folder.path, UNFINISHED)
        yield


def _is_saved(folder: RunFolder) -> bool:
    """Whether there is a checkpoint, damaged or not."""
    return any(folder.checkpoints.glob("[0-9]*"))


def _check_is_unused(folder: RunFolder) -> None:
    """Refuses the folder of a run that has something to lose: one that came to no epoch is begun anew.

    Raises:
        Misuse: there are checkpoints or metrics.
    """
    if _is_saved(folder):
        raise Misuse(f"--out must be a folder without a run, got {folder.path}: name another, or use --resume")
    with refusals_are_misuse():
        rows = folder.rows()
    if rows:
        raise Misuse(
            f"--out must be a folder without a run, got {folder.path} with the metrics of one that saved no "
            "checkpoint: name another, or remove it"
        )


def _continuing(folder: RunFolder) -> str:
    return f"vae-jax train --resume {shlex.quote(str(folder.path))} continues it"


def check_sizes(images: "ImageData") -> None:
    """Refuses too few images for the standard error of a score.

    Raises:
        Misuse: too few for validation or test.
    """
    num_validation, num_test = len(images.validation.images), len(images.test.images)
    if num_validation == 1:
        raise Misuse("--num-validation must be 0 or at least 2, got 1: an error needs two images")
    if num_test < 2:
        raise Misuse(f"--data must have at least 2 test images, got {num_test} ({images.source}): an error needs two")
