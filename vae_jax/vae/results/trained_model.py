"""A model that has been trained, read from its run's folder."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax

from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import Params
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import NoRun, RunFolder
from vae_jax.vae.training.training_loop import Learned, abstract_state


@dataclass(frozen=True)
class TrainedModel:
    """A model with its parameters, in numpy arrays; with several seeds they have a leading axis of them."""

    experiment: Experiment
    shape: tuple[int, ...]
    """Of an image."""
    step: int
    """Training steps that it has seen."""
    learned: Learned

    @property
    def params(self) -> Params:
        """Of the model."""
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
            raise ValueError(f"the seed's number must be from 0 to {num_seeds - 1}, got {seed}: choose of these")
        if num_seeds == 1:
            return self
        learned = jax.tree.map(lambda leaf: leaf[seed], self.learned)
        return replace(self, learned=learned, experiment=replace(self.experiment, num_seeds=1))


def load_trained(folder: RunFolder, *, which: str = "best", on_damage: Callable[[str], None]) -> TrainedModel:
    """The model of a run at its best checkpoint, by the validation ELBO, or at its latest.

    Args:
        folder: of the run.
        which: best or latest.
        on_damage: is told of damaged checkpoints that are passed over.

    Raises:
        NoRun: the folder holds none.
        CheckpointError: no checkpoint can be restored.
        ValueError: another `which`.
    """
    if which not in ("best", "latest"):
        raise ValueError(f"the checkpoint must be best or latest, got {which}: choose of these")
    config = folder.read_config()
    experiment = folder.experiment()
    try:
        shape, num_images = tuple(config["images"]["shape"]), config["images"]["num_train"]
    except (KeyError, TypeError) as error:
        raise NoRun(f"{folder.path} must hold a run of this version, got one without {error}: train anew") from error
    checkpoints = Checkpoints(folder.checkpoints)
    restore = checkpoints.restore_best if which == "best" else checkpoints.restore_latest
    restored = restore(abstract_state(experiment, num_images, shape), on_damage=on_damage)
    return TrainedModel(experiment, shape, restored.step, restored.state.learned)
