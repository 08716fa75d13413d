"""Options that several commands share, each declared once: its type, its range and its help.

A command names one as the type of a field, with its default: `seed: Seed = 0`. `check_options` refuses what is out of
range.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.runtime import DtypeName
from vae_jax.settings import (
    AT_LEAST_0,
    AT_LEAST_1,
    AT_LEAST_2,
    SEED,
    AppliesWith,
    check_settings,
    check_settings_are_used,
    flag_of,
    values_of,
)


def optional(metavar: str, help: str | None = None) -> Any:
    """The look in help of an option that is unset by default: its text explains what applies then.

    Args:
        metavar: what stands for the value.
        help: the text, by default the docstring of the field, whose class is `documented`.
    """
    return tyro.conf.arg(metavar=metavar, help=help, help_behavior_hint="")


Seed: TypeAlias = Annotated[int, SEED, tyro.conf.arg(help="Seed of the random numbers.")]
Dtype: TypeAlias = Annotated[DtypeName, tyro.conf.arg(help="Floating-point precision.")]
Out: TypeAlias = Annotated[Path, tyro.conf.arg(help="Folder for the results.")]
Debug: TypeAlias = Annotated[bool, tyro.conf.arg(help="Show the traceback of an error.")]

NumReplicates: TypeAlias = Annotated[
    int, AT_LEAST_2, tyro.conf.arg(help="Independent estimates at each number of samples.")
]

Rank: TypeAlias = Annotated[
    int,
    AT_LEAST_1,
    AppliesWith(family=("low_rank",)),
    tyro.conf.arg(help="Rank of the low_rank family's covariance, which has a diagonal too."),
]

RunPath: TypeAlias = Annotated[
    tyro.conf.Positional[Path], tyro.conf.arg(help="Folder of the training run.", metavar="RUN")
]
Checkpoint: TypeAlias = Annotated[
    Literal["best", "latest"], tyro.conf.arg(help="The best checkpoint by validation ELBO, or the latest.")
]
ModelSeed: TypeAlias = Annotated[
    int, AT_LEAST_0, tyro.conf.arg(help="Index of the model, from 0, in a run that trained several.")
]
Split: TypeAlias = Annotated[Literal["test", "validation", "train"], tyro.conf.arg(help="Split of the images.")]
Data: TypeAlias = Annotated[
    str | None, optional("PATH", "Dataset, folder or file of the images. By default the run's own.")
]
DataDir: TypeAlias = Annotated[str | None, optional("PATH", "Folder of datasets. By default the run's own.")]


@dataclass(frozen=True)
class ModelOptions:
    """The trained model."""

    run: RunPath
    checkpoint: Checkpoint = "best"
    model_seed: ModelSeed = 0


@dataclass(frozen=True)
class ImageOptions:
    """The images."""

    split: Split = "test"
    data: Data = None
    data_dir: DataDir = None


def check_options(options: Any) -> None:
    """Refuses what the declared fields of a command, and of the options nested in it, do not allow.

    Raises:
        Misuse: a value outside its type or range, or one that has no effect; one line that names it.
    """
    with refusals_are_misuse():
        check_settings(options, named=flag_of)
        check_settings_are_used(options, named=flag_of)


UNSAVED = ("out", "debug")
"""Fields that the numbers do not depend on."""


def settings_of(options: Any) -> dict[str, Any]:
    """The fields of a command that its results depend on, those of nested options too, without those left unset."""
    values = values_of(options).items()
    return {name: value for name, value in values if name not in UNSAVED and value not in (None, ())}
