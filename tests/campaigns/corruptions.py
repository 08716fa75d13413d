"""Corruptions of the files of a run: each must be noticed, by one line that names the file.

    PYTHONPATH=tests python tests/campaigns/corruptions.py 1000

Prints how many there were by file and by kind, how many were unnoticed and how many ended in another error than those
that a command reports. A corruption of a checkpoint that another one stands in for is noticed by a warning.
"""

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.vae.config.experiment import Experiment, ModelConfig, TrainingConfig
from vae_jax.vae.data.image_data import ImageData, Split, split_images
from vae_jax.vae.results.score_summary import LIKELIHOOD, SCORED, likelihood_before
from vae_jax.vae.results.trained_model import load_trained
from vae_jax.vae.runs.checkpoints import CheckpointError, Checkpoints
from vae_jax.vae.runs.run_folder import NoRun, RunFolder
from vae_jax.vae.runs.schema_version import OtherSchema
from vae_jax.vae.runs.training_run import Run

EXPERIMENT = Experiment(
    model=ModelConfig(latent_size=2, hidden_sizes=(3,)), training=TrainingConfig(num_epochs=5, batch_size=32)
)
PIXELS = np.random.default_rng(0).integers(0, 256, (90, 2, 3)).astype(np.uint8)
SCORES = dict.fromkeys((*SCORED, *LIKELIHOOD), 1.5) | {"split": "test"}

KINDS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "a flipped bit": lambda content, dice: _flipped(content, dice),
    "a byte too few": lambda content, dice: _spliced(content, dice, 1, b""),
    "a byte too many": lambda content, dice: _spliced(content, dice, 0, dice.randbytes(1)),
    "a changed digit": lambda content, dice: _with_another_digit(content, dice),
    "a lost end": lambda content, dice: content[: dice.randrange(len(content))],
    "a lost beginning": lambda content, dice: content[dice.randrange(1, len(content) + 1) :],
    "a lost line": lambda content, dice: _without_a_line(content, dice),
    "a line twice": lambda content, dice: _with_a_line_twice(content, dice),
    "zeros": lambda content, dice: _spliced(content, dice, 64, bytes(64)),
    "other bytes": lambda content, dice: dice.randbytes(len(content)),
    "nothing": lambda content, dice: b"",
    "no file": lambda content, dice: None,
}


def _flipped(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


def _spliced(content: bytes, dice: random.Random, length: int, piece: bytes) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + piece + content[place + length :]


def _with_another_digit(content: bytes, dice: random.Random) -> bytes:
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    if not places:
        return _flipped(content, dice)
    place = dice.choice(places)
    return content[:place] + str((content[place] - 47) % 10).encode() + content[place + 1 :]


def _without_a_line(content: bytes, dice: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[dice.randrange(len(lines))]
    return b"".join(lines)


def _with_a_line_twice(content: bytes, dice: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = dice.randrange(len(lines))
    return b"".join([*lines[: place + 1], *lines[place:]])


class Corruption(NamedTuple):
    """A corrupted file, and the lines that readers of the run gave for it."""

    file: str
    kind: str
    lines: list[str]
    crash: str | None
    """An error that no reader may raise."""

    @property
    def is_noticed(self) -> bool:
        """Whether a line names the file, or the folder of its checkpoint."""
        return any(self.file in line for line in self.lines)


class Corruptions:
    """A run, and copies of it with one file corrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: ImageData = split_images("random", "random", {"train": Split(PIXELS, None)}, num_validation=20)
        self.whole = RunFolder(folder / "whole")
        facts = {
            "checksum": self.images.checksum,
            "shape": self.images.shape,
            "num_train": len(self.images.train.images),
        }
        self.whole.write_config(EXPERIMENT, {"images": facts})
        self.run = Run(EXPERIMENT, self.images, self.whole)
        self.run.train(self.run.start(), stop_after=4)
        self.whole.write_summary(SCORES)
        # A third checkpoint stands by, and is read only if the latest is damaged.
        read = {load_trained(self.whole, which=which, on_damage=print).step for which in ("best", "latest")}
        files = [path for step in read for path in (self.whole.checkpoints / str(step)).rglob("*") if path.is_file()]
        files += [self.whole.path / name for name in ("config.json", "metrics.jsonl", "summary.json")]
        self.names = sorted(path.relative_to(self.whole.path).as_posix() for path in files if path.stat().st_size)

    def corrupted(self, dice: random.Random) -> Corruption:
        """One corruption, of a file and a kind at random, and what reading the run says."""
        top = dice.choice(["config.json", "metrics.jsonl", "summary.json", "checkpoints"])
        name = dice.choice([each for each in self.names if each.startswith(top)])
        content = (self.whole.path / name).read_bytes()
        kind = dice.choice(list(KINDS))
        changed = KINDS[kind](content, dice)
        if changed == content:
            return self.corrupted(dice)
        path = Path(shutil.copytree(self.whole.path, self.folder / "copy"))
        try:
            if changed is None:
                (path / name).unlink()
            else:
                (path / name).write_bytes(changed)
            return self._read(RunFolder(path), name, kind)
        finally:
            shutil.rmtree(path)

    def _read(self, folder: RunFolder, name: str, kind: str) -> Corruption:
        lines: list[str] = []
        self.run.folder, self.run.checkpoints = folder, Checkpoints(folder.checkpoints)
        readers = (
            folder.rows,
            lambda: likelihood_before(folder, SCORES, on_damage=lines.append),
            lambda: load_trained(folder, on_damage=lines.append),
            lambda: load_trained(folder, which="latest", on_damage=lines.append),
            lambda: self.run.resume(lines.append),
        )
        for read in readers:
            try:
                read()
            except (NoRun, OtherSchema, CheckpointError) as error:
                lines.append(str(error))
            except Exception as error:
                return Corruption(name, kind, lines, f"{type(error).__name__}: {error}")
        # A lost summary is no damage: its scores are computed anew.
        is_absent = kind == "no file" and name.startswith("summary")
        return Corruption(name, kind, [*lines, name] if is_absent else lines, None)


def campaign(number: int, seed: int = 0) -> list[Corruption]:
    """So many corruptions."""
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        corruptions = Corruptions(Path(folder))
        return [corruptions.corrupted(dice) for _ in range(number)]


def main(number: int) -> int:
    """Prints the counts; returns 1 if a corruption was unnoticed or crashed a reader."""
    found = campaign(number)
    unnoticed = [each for each in found if each.crash is None and not each.is_noticed]
    crashes = [each for each in found if each.crash is not None]
    several = [each for each in found if any("\n" in line for line in each.lines)]
    for title, names in (
        ("file", (each.file.split("/")[0] for each in found)),
        ("kind", (each.kind for each in found)),
    ):
        print(f"by {title}:", ", ".join(f"{name} {count}" for name, count in sorted(Counter(names).items())))
    for each in (*unnoticed, *crashes):
        print(each)
    print(f"{number} corruptions: {len(unnoticed)} unnoticed, {len(crashes)} crashes, {len(several)} of several lines")
    return int(bool(unnoticed or crashes or several))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
