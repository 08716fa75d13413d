"""Checkpoints of a run as it goes: the latest state from time to time, and the best with it."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import EpochRow
from vae_jax.vae.training.training_loop import TrainState


class PeriodicCheckpoints:
    """Saves the latest state when it is due, and the best with it.

    Args:
        checkpoints: where states are saved.
        seconds: time between two saves.
        best: the best epoch before, if there is one.
        step: steps done before.
        facts: facts about the run up to a step, which are saved with its state.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        seconds: float,
        *,
        best: EpochRow | None,
        step: int,
        facts: Callable[[int], Mapping[str, Any]],
    ) -> None:
        self.checkpoints, self.seconds, self.facts = checkpoints, seconds, facts
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
            self.checkpoints.save(best_step, best_state, score=self.best_score, about=self.facts(best_step))
        if step != self.saved_step:
            self.checkpoints.save(step, state, score=self.scores.get(step), about=self.facts(step))
        self.unsaved_best, self.saved_step, self.saved_at = None, step, time.monotonic()
