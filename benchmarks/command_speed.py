"""How long the default command takes: with an empty compilation cache, with a full one, and to show its help.

python benchmarks/command_speed.py [--out benchmarks/results]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from vae_jax.runtime import environment

COMMAND = (sys.executable, "-m", "vae_jax")
START_UP = "from vae_jax.runtime import start_jax; start_jax('float32'); import vae_jax.studies, vae_jax.plotting"


def main(rounds: int = 5, out: Path | None = None) -> None:
    """Times the command.

    Args:
        rounds: runs of each kind, whose median is taken.
        out: folder for command_speed.json.
    """
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "start_up": [], "help": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            # Each round's first run meets a cache of its own, which is empty, and its second one finds it filled.
            variables = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache-{number}"}
            variables.pop("JAX_COMPILATION_CACHE_DIR", None)
            for kind, command in (
                ("cold", (*COMMAND, "variance")),
                ("warm", (*COMMAND, "variance")),
                ("start_up", (sys.executable, "-c", START_UP)),
                ("help", (*COMMAND, "--help")),
            ):
                started = time.perf_counter()
                subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=True)
                seconds[kind].append(time.perf_counter() - started)
    results = {
        kind: {"median_seconds": statistics.median(each), "min_seconds": min(each), "max_seconds": max(each)}
        for kind, each in seconds.items()
    }
    for kind, each in results.items():
        print(f"{kind:9} {each['median_seconds']:.2f} s ({each['min_seconds']:.2f} to {each['max_seconds']:.2f})")
    if out is not None:
        content = {"environment": environment("float32", seed=0), "rounds": rounds, **results}
        (out / "command_speed.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
