"""Options that several commands share, each declared once: its type, its range and its help."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from vae_jax.cli.misuse import Misuse
from vae_jax.runtime import Dtype as DtypeName
from vae_jax.settings import SEED

Seed: TypeAlias = Annotated[int, SEED, tyro.conf.arg(help="Seed of the random numbers.")]
Dtype: TypeAlias = Annotated[DtypeName, tyro.conf.arg(help="Floating-point precision.")]
Out: TypeAlias = Annotated[Path, tyro.conf.arg(help="Folder for the results.")]
Debug: TypeAlias = Annotated[bool, tyro.conf.arg(help="Show the traceback of an error.")]
RunPath: TypeAlias = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(help="Folder of the training run.")]
Split: TypeAlias = Annotated[Literal["test", "validation", "train"], tyro.conf.arg(help="Which images.")]
Checkpoint: TypeAlias = Annotated[
    Literal["best", "latest"], tyro.conf.arg(help="The best by the validation ELBO, or the latest.")
]
ModelSeed: TypeAlias = Annotated[int, tyro.conf.arg(help="Which model of a run with several seeds, from 0.")]
Data: TypeAlias = Annotated[str | None, tyro.conf.arg(help="Where the images are, if not where the run found them.")]
DataDir: TypeAlias = Annotated[
    str | None, tyro.conf.arg(help="Where datasets are kept, if not where the run found them.")
]

MAX_SEED = 2**32


def check_seed(seed: int) -> None:
    """Refuses a seed that is none of JAX's.

    Raises:
        Misuse: it is out of range.
    """
    if not 0 <= seed < MAX_SEED:
        raise Misuse(f"--seed must be from 0 to {MAX_SEED - 1}, got {seed}: change it")
