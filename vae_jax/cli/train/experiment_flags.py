"""Experiments on the command line: presets, changes to them, and what a resumed run may change."""

import shlex
from typing import Any

from vae_jax.settings import flag_of, values_of
from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.config.presets import PRESETS


def flags(experiment: Experiment) -> dict[str, Any]:
    """Every setting of an experiment by the name of its flag."""
    return {flag_of(name): value for name, value in values_of(experiment).items()}


def train_command_line(preset: str, experiment: Experiment) -> str:
    """The command that trains this experiment: the preset and what differs from it."""
    before = flags(PRESETS[preset])
    words = ["vae-jax", "train", preset]
    for flag, value in flags(experiment).items():
        if value != before[flag]:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return shlex.join(words)


def check_resumable(before: Experiment, now: Experiment) -> None:
    """Refuses a change to a run that is resumed, except more epochs where no schedule depends on their number.

    Raises:
        ValueError: naming the first flag that differs.
    """
    for flag, value in flags(now).items():
        old = flags(before)[flag]
        # Images may have moved: it is their checksum that must be the same.
        if value == old or flag in ("--data", "--data-dir"):
            continue
        if flag != "--num-epochs":
            raise ValueError(f"{flag} must be {old} as in the run that is resumed, got {value}: leave it out")
        if value < old:
            raise ValueError(f"--num-epochs must be at least the run's {old}, got {value}: --stop-after ends it early")
        from vae_jax.vae.training.training_schedules import depends_on_num_epochs

        if depends_on_num_epochs(before):
            raise ValueError(
                f"--num-epochs must stay {old}, got {value}: a schedule of the run depends on it; train anew with more"
            )
