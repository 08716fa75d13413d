"""The commands by name, and the defaults that the word after `train` chooses."""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from vae_jax.cli.cavi.cavi import CaviCommand
from vae_jax.cli.compare import CompareCommand
from vae_jax.cli.encode import EncodeCommand
from vae_jax.cli.evaluate import EvaluateCommand
from vae_jax.cli.evidence.evidence import EvidenceCommand
from vae_jax.cli.evidence.image_evidence import ImageEvidenceCommand
from vae_jax.cli.fit.fit import FitCommand
from vae_jax.cli.gradient_noise import GradientNoiseCommand
from vae_jax.cli.laplace import LaplaceCommand
from vae_jax.cli.misuse import Misuse, refusals_are_misuse
from vae_jax.cli.plot import PlotCommand
from vae_jax.cli.reconstruct import ReconstructCommand
from vae_jax.cli.regress.regress import RegressCommand
from vae_jax.cli.sample import SampleCommand
from vae_jax.cli.train.train import TrainCommand
from vae_jax.cli.variance.variance import VarianceCommand
from vae_jax.vae.config.presets import DEFAULT_PRESET, PRESETS
from vae_jax.vae.runs.run_folder import RunFolder

COMMANDS = {
    "variance": VarianceCommand,
    "compare": CompareCommand,
    "laplace": LaplaceCommand,
    "cavi": CaviCommand,
    "evidence": EvidenceCommand,
    "fit": FitCommand,
    "regress": RegressCommand,
    "train": TrainCommand,
    "evaluate": EvaluateCommand,
    "sample": SampleCommand,
    "reconstruct": ReconstructCommand,
    "encode": EncodeCommand,
    "plot": PlotCommand,
    "gradient-noise": GradientNoiseCommand,
    "image-evidence": ImageEvidenceCommand,
}

MOVED = {
    ("variance", "--run"): "gradient-noise RUN",
    ("evidence", "--run"): "image-evidence RUN",
    ("fit", "--csv"): "regress FILE.csv",
}
"""Flags that became commands, and those commands."""


def commands_of(arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """The union of the commands for tyro to parse, and the arguments without the preset's name.

    Raises:
        Misuse: a flag that became a command, an unknown preset, or a run to resume that is none.
    """
    arguments = list(arguments)
    first = arguments[0] if arguments else None
    _check_moved(first, arguments[1:])
    # The list of all commands has one sentence for each.
    described = paragraphs if first in COMMANDS else first_line
    details: dict[str, dict[str, Any]] = {name: {"description": described(each)} for name, each in COMMANDS.items()}
    if first == "train":
        details["train"]["default"], arguments = _train_default(arguments)
    members = tuple(
        Annotated[command, tyro.conf.subcommand(name, **details[name])] for name, command in COMMANDS.items()
    )
    return Union[members], arguments  # noqa: UP007


def first_line(command: type) -> str:
    """The first line of a command's docstring."""
    return (command.__doc__ or "").partition("\n")[0]


def paragraphs(command: type) -> str:
    """A command's docstring with each paragraph, and each item of a list, on one line, which the terminal breaks."""
    return re.sub(r"(?<!\n)\n(?!\n|- ) *", " ", inspect.cleandoc(command.__doc__ or ""))


def _check_moved(command: str | None, words: Sequence[str]) -> None:
    for word in words:
        flag = word.partition("=")[0]
        if command is not None and (command, flag) in MOVED:
            name = MOVED[command, flag]
            raise Misuse(
                f"vae-jax {command} {flag} is now vae-jax {name}: vae-jax {name.split()[0]} --help explains it"
            )


def _train_default(arguments: list[str]) -> tuple[TrainCommand, list[str]]:
    """The preset or the run that a training begins with, and the arguments without its name."""
    resumed = _resumed(arguments)
    if resumed is not None:
        folder = RunFolder(resumed)
        with refusals_are_misuse():
            preset = folder.read_config().get("preset")
            known = preset if preset in PRESETS else DEFAULT_PRESET
            return TrainCommand(folder.experiment(), preset=known), arguments
    preset = DEFAULT_PRESET
    if len(arguments) > 1 and not arguments[1].startswith("-"):
        preset = arguments.pop(1)
    if preset not in PRESETS:
        raise Misuse(f"the preset must be one of {', '.join(PRESETS)}, got {preset}: use one of these")
    return TrainCommand(PRESETS[preset], preset=preset), arguments


def _resumed(arguments: list[str]) -> Path | None:
    """The folder after --resume, or after its equals sign."""
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        if word.startswith("--resume="):
            return Path(word.removeprefix("--resume="))
        if word == "--resume" and following is not None:
            return Path(following)
    return None
