"""Interrupts of commands at random moments: each command must end in time, with one line and nothing left behind.

    PYTHONPATH=tests python tests/campaigns/interrupts.py 300

Sends Ctrl-C, SIGTERM or the signal of a closed terminal, and prints how each command answered.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from commands import settings_of_process, words_of_process

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LATEST = 15.0
"""Seconds after its start within which a command is interrupted."""

LONG = {
    "variance": ("--estimators", "all", "--num-replicates", 100_000),
    "compare": ("pathwise", "score_function", "--num-replicates", 1_000_000),
    "laplace": ("--factorial", *range(1, 30)),
    "cavi": ("--simulate", 1_000_000, "--num-components", "2:6"),
    "evidence": ("--num-latents", 50, "--num-samples", 1_000_000),
    "fit": ("--num-steps", 2_000_000),
    "regress": ("data.csv", "--response", "count", "--predictors", "x", "--num-steps", 2_000_000),
    "train": ("--data", "digits", "--num-epochs", 100_000),
    "evaluate": ("run", "--num-importance-samples", 500_000),
    "sample": ("run", "--num-images", 1_000),
    "reconstruct": ("run", "--num-images", 100),
    "encode": ("run",),
    "plot": ("run",),
    "gradient-noise": ("run", "--num-replicates", 1_000_000),
    "image-evidence": ("run", "--num-images", 100),
}
"""Every command with work for minutes, where it can have so much."""


class Answer(NamedTuple):
    """The answer of a command to an interrupt."""

    command: str
    after: float
    """Seconds from its start to the interrupt."""
    code: int
    seconds: float
    errors: str
    left: list[str]

    @property
    def is_right(self) -> bool:
        """Whether it ended in time by itself, without a traceback, and left nothing unfinished."""
        in_time = self.seconds < (10 if self.command == "train" else 2)
        return self.code == 130 and in_time and "Traceback" not in self.errors and not self.left


def prepare(folder: Path) -> None:
    """A run and a table for the commands that read them."""
    (folder / "data.csv").write_text("count,x\n3,0.1\n4,0.9\n8,1.5\n2,0.2\n7,1.9\n")
    words = words_of_process("train", "--data", "digits", "--num-epochs", 1, "--out", "run")
    subprocess.run(words, check=True, capture_output=True, **settings_of_process(folder))


def interrupted(folder: Path, command: str, dice: random.Random) -> Answer | None:
    """The answer of a command to an interrupt at a random moment, or None if it was done before."""
    before = set(folder.rglob("*"))
    out = () if command in ("encode", "train", "evaluate") else ("--out", "results/deep")
    process = subprocess.Popen(
        words_of_process(command, *LONG[command], *out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings_of_process(folder),
    )
    after = dice.uniform(0.2, LATEST)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        start = time.monotonic()
        process.send_signal(dice.choice(SIGNALS))
        _, errors = process.communicate(timeout=60)
        seconds = time.monotonic() - start
        if process.returncode == 0:  # It was done already, and about to end.
            return None
        new = {path.relative_to(folder) for path in set(folder.rglob("*")) - before}
        left = [str(path) for path in new if ".partial" in str(path) or path.parts[0] == "results"]
        return Answer(command, after, process.returncode, seconds, errors, left)
    return None


def campaign(number: int, seed: int = 0) -> list[Answer]:
    """So many interrupts, of all commands in turn."""
    dice, answers = random.Random(seed), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        commands = list(LONG)
        for trial in range(3 * number):
            if len(answers) == number:
                break
            answer = interrupted(folder, commands[trial % len(commands)], dice)
            answers += [] if answer is None else [answer]
            for name in ("vae-jax-train", "results"):
                subprocess.run(["rm", "-rf", folder / name], check=True)
    return answers


def main(number: int) -> int:
    """Prints the counts; returns 1 if a command answered wrongly."""
    answers = campaign(number)
    wrong = [answer for answer in answers if not answer.is_right]
    for command, count in sorted(Counter(answer.command for answer in answers).items()):
        slowest = max(answer.seconds for answer in answers if answer.command == command)
        print(f"{command}: {count} interrupts, the slowest answer in {slowest:.2f} s")
    for answer in wrong:
        print(answer)
    print(f"{len(answers)} interrupts: {len(wrong)} answered wrongly")
    return int(bool(wrong) or len(answers) < number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
