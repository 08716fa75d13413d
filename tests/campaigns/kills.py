"""Kills of a training at random moments, in chains: the run that is resumed must end as one that nothing interrupted.

    PYTHONPATH=tests python tests/campaigns/kills.py 200

Kills by SIGKILL, SIGTERM and SIGHUP. A resumed run is killed again, until the run is finished; then the next begins.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from commands import settings_of_process, words_of_process
from sealed_files import without_seal

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)

TRAINING = ("train", "--data", "digits", "--num-epochs", 300, "--hidden-sizes", 8, "--latent-size", 2)
SAVING = ("--seconds-between-checkpoints", 0.3)

LATEST = 12.0
"""Seconds after a start within which it is killed."""


def started(folder: Path, *words: object) -> subprocess.Popen:
    """A training, as a process of its own."""
    return subprocess.Popen(
        words_of_process(*words, *SAVING), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings_of_process(folder)
    )


def lasting(run: Path) -> dict[str, Any]:
    """The part of a run that must repeat: metrics without the speed, scores, and the checkpoints' arrays."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    passing = {"seconds", "images_per_second", "sha256"}
    manifests = [without_seal(path) for path in sorted(run.glob("checkpoints/*/manifest.json"))]
    return {
        "metrics": [{name: value for name, value in row.items() if name not in passing} for row in rows],
        "summary": without_seal(run / "summary.json"),
        "latest": max(((each["step"], each["leaves"]) for each in manifests), key=lambda pair: pair[0]),
        "best": max((each["score"] or float("-inf"), each["step"]) for each in manifests),
    }


def chain(folder: Path, dice: random.Random, most: int) -> tuple[int, list[str]]:
    """Kills one training and its continuations until it is finished or has been killed `most` times.

    Returns:
        The number of kills, and the errors of continuations that failed.
    """
    kills, errors = 0, []
    words: tuple[object, ...] = (*TRAINING, "--out", "run")
    while True:
        process = started(folder, *words)
        try:
            _, said = process.communicate(timeout=dice.uniform(0.5, LATEST) if kills < most else 600)
        except subprocess.TimeoutExpired:
            process.send_signal(dice.choice(SIGNALS))
            process.communicate()
            kills += 1
            words = ("train", "--resume", "run") if (folder / "run/config.json").exists() else words
            continue
        if process.returncode:
            errors.append(said.splitlines()[-1] if said else f"exit code {process.returncode}")
        return kills, errors


def campaign(number: int, seed: int = 0) -> tuple[int, list[str]]:
    """So many kills: the number of them, and the differences and errors."""
    dice, kills, faults = random.Random(seed), 0, []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        whole = started(folder, *TRAINING, "--out", "run")
        whole.communicate()
        expected = lasting(folder / "run")
        while kills < number:
            shutil.rmtree(folder / "run")
            more, errors = chain(folder, dice, number - kills)
            kills += more
            faults += errors
            if not errors:
                found = lasting(folder / "run")
                faults += [f"another {name} after {more} kills" for name in expected if found[name] != expected[name]]
            faults += [f"{path} is left" for path in folder.rglob(".partial*")]
    return kills, faults


def main(number: int) -> int:
    """Prints the counts; returns 1 if a run ended otherwise or failed."""
    start = time.monotonic()
    kills, faults = campaign(number)
    for fault in faults:
        print(fault)
    print(f"{kills} kills: {len(faults)} differences or errors, {time.monotonic() - start:.0f} s")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
