"""Stops a run at the first number that is not finite."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import EpochRow
from vae_jax.vae.training.training_loop import TrainState, steps_done


class Diverged(RuntimeError):
    """A term of the objective, or a parameter, is not finite. The message is one line."""


class DivergenceWatch:
    """Raises Diverged, with a message that says where it happened and what is left of the run.

    Args:
        checkpoints: of the run.
        steps_per_epoch: for the message.
        num_seeds: models trained at once; the first that diverges is named.
    """

    def __init__(self, checkpoints: Checkpoints, steps_per_epoch: int, num_seeds: int) -> None:
        self.checkpoints, self.steps_per_epoch, self.num_seeds = checkpoints, steps_per_epoch, num_seeds

    def check_state(self, state: TrainState) -> None:
        """Refuses a state with a term or a parameter that is not finite.

        Raises:
            Diverged: naming the first seed's first such step and term.
        """
        failure, finite = jax.device_get((state.failure, _all_finite(state.learned, self.num_seeds)))
        for seed in range(self.num_seeds):
            step, *terms = (float(np.ravel(leaf)[seed]) for leaf in (failure.step, *failure.terms))
            if step >= 0:
                named = dict(zip(failure.terms._fields, terms, strict=True))
                # The objective and the ELBO are made of the other two.
                name = next(n for n in ("reconstruction", "kl", "elbo", "objective") if not math.isfinite(named[n]))
                raise Diverged(self._message(f"the {name} was {named[name]}", int(step), seed))
            if not np.ravel(finite)[seed]:
                raise Diverged(self._message("a parameter was not finite", steps_done(state) - 1, seed))

    def check_validation(self, row: EpochRow) -> None:
        """Refuses an epoch with a validation ELBO that is not finite.

        Raises:
            Diverged: at its last step.
        """
        if not np.all(np.isfinite(row["validation_elbo"] or 0)):
            raise Diverged(self._message("the validation ELBO was not finite", row["step"] - 1, 0))

    def _message(self, what: str, step: int, seed: int) -> str:
        epoch, batch = divmod(step, self.steps_per_epoch)
        which = f" of seed {seed}" if self.num_seeds > 1 else ""
        return (
            f"{what} by step {step + 1}{which} (epoch {epoch + 1}, batch {batch + 1} of {self.steps_per_epoch}): lower "
            f"the learning rate or clip the gradient, and train anew; {self._kept()}"
        )

    def _kept(self) -> str:
        """The part of a message about the checkpoints of a run that diverged."""
        steps = self.checkpoints.steps()
        if not steps:
            return "no checkpoint had been saved"
        return f"the checkpoint of step {steps[-1]} is kept, but resuming from it would diverge again"


def _all_finite(tree: Any, num_seeds: int) -> Array:
    """Whether every number of each seed is finite [num_seeds]."""
    leaves = [jnp.isfinite(leaf).reshape(num_seeds, -1).all(axis=1) for leaf in jax.tree.leaves(tree)]
    return jnp.stack(leaves).all(axis=0)
