"""The peak memory of one pass in a process of its own, above what its imports take."""

import argparse
import json
import subprocess
from dataclasses import dataclass
from typing import Any

import jax

from benchmarks.child_process import child_environment, module_command
from benchmarks.interleaved_timing import seconds_of
from benchmarks.process_memory import peak_on_device, peak_resident, restart_peak
from benchmarks.variance.gradient_passes import blocked_pass
from benchmarks.variance.variance_work import default_work
from vae_jax.runtime import num_cores


@dataclass(frozen=True)
class MemoryCase:
    """One pass: an estimator's gradient statistics."""

    estimator: str
    num_samples: int
    num_replicates: int
    block_size: int | None = None


def measured_peak(case: MemoryCase) -> dict[str, Any]:
    """Runs a case in a fresh process and returns its peaks (bytes) and its time."""
    arguments = [case.estimator, case.num_samples, case.num_replicates]
    arguments += [] if case.block_size is None else [case.block_size]
    command = module_command("benchmarks.variance.pass_memory", *arguments)
    child = subprocess.run(command, env=child_environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(child.stdout)


def _print_peak(case: MemoryCase) -> None:
    jax.config.update("jax_num_cpu_devices", num_cores())
    resident_after_imports = restart_peak()
    work = default_work(case.num_samples, case.num_replicates)
    seconds = seconds_of(blocked_pass(work, case.estimator, case.block_size))
    report = {
        "peak_resident_bytes_above_imports": peak_resident() - resident_after_imports,
        "resident_bytes_after_imports": resident_after_imports,
        "peak_device_bytes": peak_on_device(),
        "seconds_with_compilation": seconds,
    }
    print(json.dumps(report))


def _parse() -> MemoryCase:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("estimator")
    parser.add_argument("num_samples", type=int)
    parser.add_argument("num_replicates", type=int)
    parser.add_argument("block_size", type=int, nargs="?")
    return MemoryCase(**vars(parser.parse_args()))


if __name__ == "__main__":
    _print_peak(_parse())
