"""Bad inputs to every command: each must be refused or done, with one line, and never with a traceback.

    PYTHONPATH=tests python tests/campaigns/bad_inputs.py 1000

Flags get values that they cannot have, and files are not what they should be. Small settings keep what is accepted
short. Prints how many inputs ended with each exit code.
"""

import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from commands import run_command
from small_commands import ARGUMENTS
from vae_jax.cli.command_flags import flags_of
from vae_jax.cli.commands import COMMANDS

VALUES = (
    "", " ", "nan", "inf", "-inf", "-1", "0", "0.5", "1e400", "1e-400", "999999999999999999999", "true", "None", "a,b",
    "☃", "\x00", "a\nb", "=", "--", "-", "../..", "/dev/null", "/", "~", "*", "1:0", "1:", "0x10", "1_000", "٣", "NaN",
)  # fmt: skip

TRAINING = ("--hidden-sizes", 4, "--latent-size", 2, "--num-epochs", 1)

SMALL = ARGUMENTS | {"train": ("--data", "good.npz", *TRAINING)}

READERS = {
    "csv": (
        ("regress", "FILE", "--response", "count", "--predictors", "x", "--num-steps", 40, "--window", 20),
        ("cavi", "FILE", "--position", "x", "count", "--model", "normal-wishart", "--num-components", 1),
        ("variance", "--data", "FILE", *SMALL["variance"]),
    ),
    "npz": (("train", "--data", "FILE", *TRAINING),),
    "npy": (("train", "--data", "FILE", *TRAINING),),
}

GOOD = {"csv": "data.csv", "npz": "good.npz", "npy": "good.npy"}

LARGEST_WORK = ("--num-replicates", "--num-steps", "--num-epochs", "--num-samples", "--simulate", "--num-images")
"""Flags of which a large number would be accepted and take long."""


class Outcome(NamedTuple):
    """A command with a bad input, and how it ended."""

    words: tuple[object, ...]
    code: int
    errors: str

    @property
    def is_right(self) -> bool:
        """Whether it ended with a documented exit code, and one line if it was refused."""
        lines = [line for line in self.errors.splitlines() if line.startswith("vae-jax: error:")]
        return self.code in (0, 1, 2) and "Traceback" not in self.errors and len(lines) == (self.code != 0)


def prepare(folder: Path) -> None:
    """Good files, which bad ones are made of."""
    (folder / "data.csv").write_text("count,x\n3,0.1\n4,0.9\n8,1.5\n2,0.2\n7,1.9\n5,1.1\n")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8)
    np.savez(folder / "good.npz", x_train=pixels, x_test=pixels[:9])
    np.save(folder / "good.npy", pixels)
    assert run_command("train", *SMALL["train"], "--out", "run", cwd=folder).returncode == 0


def with_a_bad_value(folder: Path, dice: random.Random) -> tuple[object, ...]:
    """A command whose flag has a value at random."""
    command = dice.choice(list(SMALL))
    flag = dice.choice(sorted(set(flags_of(COMMANDS[command])) - {"--debug"}))  # Which asks for a traceback.
    value = dice.choice([value for value in VALUES if flag not in LARGEST_WORK or not value.strip("0").isdigit()])
    return (command, *SMALL[command], flag, value)


def with_a_bad_file(folder: Path, dice: random.Random) -> tuple[object, ...]:
    """A command that reads a file which was damaged at random."""
    kind = dice.choice(list(READERS))
    content = bytearray((folder / GOOD[kind]).read_bytes())
    for _ in range(dice.randrange(1, 4)):
        place = dice.randrange(len(content))
        piece = dice.choice([b"", b"\n", b",", b"\xff", b"nan", b"-", b"1e999", bytes(8), dice.randbytes(5)])
        content[place : place + dice.randrange(4)] = piece
    if dice.random() < 0.1:
        content = content[: dice.randrange(len(content))]
    (folder / f"bad.{kind}").write_bytes(content)
    return tuple(f"bad.{kind}" if word == "FILE" else word for word in dice.choice(READERS[kind]))


SOURCES: tuple[Callable[[Path, random.Random], tuple[object, ...]], ...] = (with_a_bad_value, with_a_bad_file)


def campaign(number: int, seed: int = 0) -> list[Outcome]:
    """So many bad inputs."""
    dice, outcomes = random.Random(seed), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        for trial in range(number):
            words = dice.choice(SOURCES)(folder, dice)
            out = () if {"--out", "--resume"} & set(words) or words[0] in ("evaluate", "encode") else (
                "--out", f"out-{trial}",
            )  # fmt: skip
            try:
                process = run_command(*words, *out, cwd=folder)
                outcomes.append(Outcome(words, process.returncode, process.stderr))
            except BaseException as error:
                outcomes.append(Outcome(words, -1, f"Traceback: {type(error).__name__}: {error}"))
    return outcomes


def main(number: int) -> int:
    """Prints the counts; returns 1 if an input ended in another way."""
    outcomes = campaign(number)
    wrong = [outcome for outcome in outcomes if not outcome.is_right]
    for outcome in wrong:
        print(outcome)
    print(", ".join(f"exit code {code}: {count}" for code, count in sorted(Counter(o.code for o in outcomes).items())))
    print(f"{number} bad inputs: {len(wrong)} ended wrongly")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
