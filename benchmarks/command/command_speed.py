"""Time of the default command with an empty compilation cache and with a full one, of its start and of its help.

    python -m benchmarks.command.command_speed

The command runs in the environment that this script runs in.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.child_process import module_command, with_cache
from benchmarks.interleaved_timing import summary
from benchmarks.saved_results import described_environment, save_results

START_UP = "from vae_jax.runtime import start_jax; start_jax('float32'); import vae_jax.studies, vae_jax.plotting"

COMMANDS = {
    "cold": module_command("vae_jax", "variance"),
    "warm": module_command("vae_jax", "variance"),
    "start_up": [sys.executable, "-c", START_UP],
    "help": module_command("vae_jax", "--help"),
}
"""The first run of a round meets an empty cache, and the second one finds it filled."""


def main(options: argparse.Namespace) -> None:
    """Times the commands, prints the medians and saves the results."""
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        times = [_seconds(Path(folder), Path(folder) / f"cache-{number}") for number in range(rounds)]
    found = {kind: summary([each[kind] for each in times]) for kind in COMMANDS}
    for kind, each in found.items():
        print(f"{kind:9} {each['median']:.2f} s ({each['min']:.2f} to {each['max']:.2f})")
    results = {
        "environment": described_environment(0),
        "rounds": rounds,
        **{kind: {f"{name}_seconds": value for name, value in each.items()} for kind, each in found.items()},
    }
    save_results(results, out_folder(options), "command_speed.json")


def _seconds(folder: Path, cache: Path) -> Mapping[str, float]:
    """The time of each command in one round, run in a folder."""
    seconds = {}
    for kind, command in COMMANDS.items():
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, env=with_cache(cache), capture_output=True, check=True)
        seconds[kind] = time.perf_counter() - started
    return seconds


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, quick="one round")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind, whose median is taken (5)")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
