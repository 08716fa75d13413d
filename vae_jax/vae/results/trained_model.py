"""A model that has been trained, read from its run's folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax

from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import Params
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.training.training_loop import Learned, abstract_state


@dataclass(frozen=True)
class TrainedModel:
    """A model with its parameters, in numpy arrays; with several seeds they have a leading axis of them."""

    experiment: Experiment
    shape: tuple[int, ...]
    """Shape of an image."""
    step: int
    """Training steps that it has seen."""
    learned: Learned

    @property
    def params(self) -> Params:
        """The parameters of the model."""
        return self.learned.model

    @property
    def architecture(self) -> Architecture:
        """The model without its parameters."""
        return Architecture.of(self.experiment, self.shape)

    def of_seed(self, seed: int) -> "TrainedModel":
        """The model of one seed alone.

        Raises:
            ValueError: there is no such seed.
        """
        num_seeds = self.experiment.num_seeds
        if not 0 <= seed < num_seeds:
            raise ValueError(f"the seed's number must be from 0 to {num_seeds - 1}, got {seed}: use one of these")
        if num_seeds == 1:
            return self
        learned = jax.tree.map(lambda leaf: leaf[seed], self.learned)
        return replace(self, learned=learned, experiment=replace(self.experiment, num_seeds=1))


def load_trained(folder: RunFolder, *, which: str = "best", on_damage: Callable[[str], None]) -> TrainedModel:
    """Loads the model of a run from its best checkpoint, by the validation ELBO, or from its latest.

    Args:
        folder: folder of the run.
        which: "best" or "latest".
        on_damage: called with a line for each damaged checkpoint that is skipped.

    Returns:
        The model with its parameters.

    Raises:
        NoRun: the folder holds no run, or its configuration or metrics are not those of the checkpoint.
        OtherSchema: another version of the library wrote the run.
        CheckpointError: no checkpoint can be restored.
        ValueError: `which` is neither "best" nor "latest".

    Example:
        A run that was stopped before its first step has the initial parameters:

        >>> import tempfile
        >>> from pathlib import Path
        >>> from vae_jax.vae import DataConfig, Experiment, ModelConfig, Run, RunFolder, load_images, load_trained
        >>> experiment = Experiment(DataConfig("digits"), ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> data = load_images("digits")
        >>> facts = {"checksum": data.checksum, "shape": data.shape, "num_train": len(data.train.images)}
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = RunFolder(Path(path))
        ...     folder.write_config(experiment, {"images": facts})
        ...     run = Run(experiment, data, folder)
        ...     outcome = run.train(run.start(), should_stop=lambda: True)
        ...     trained = load_trained(folder, which="latest", on_damage=print)
        >>> trained.step, trained.shape, trained.experiment == experiment
        (0, (8, 8), True)
    """
    if which not in ("best", "latest"):
        raise ValueError(f"the checkpoint must be 'best' or 'latest', got {which!r}")
    experiment, facts = folder.experiment(), folder.image_facts()
    shape = tuple(facts["shape"])
    checkpoints = Checkpoints(folder.checkpoints)
    restore = checkpoints.restore_best if which == "best" else checkpoints.restore_latest
    restored = restore(abstract_state(experiment, facts["num_train"], shape), on_damage=on_damage)
    folder.check_facts(restored.about, experiment, restored.step)
    return TrainedModel(experiment, shape, restored.step, restored.state.learned)
