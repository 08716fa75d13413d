"""The peak memory of one pass in a process of its own, above what its imports take."""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemoryCase:
    """One pass: an estimator's gradient statistics."""

    estimator: str
    num_samples: int
    num_replicates: int
    block_size: int | None = None


def measured_peak(case: MemoryCase) -> dict[str, Any]:
    """What `_print_peak` prints of a case, in a fresh process."""
    command = [sys.executable, "-m", "speed.memory", case.estimator, str(case.num_samples), str(case.num_replicates)]
    command += [] if case.block_size is None else [str(case.block_size)]
    # A parent that has taken its share of a GPU would leave too little for a child that takes one in advance.
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    child = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(child.stdout)


def _print_peak(case: MemoryCase) -> None:
    import jax

    from speed.ours import blocked_pass
    from speed.work import default_work, seconds_of

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    resident_after_imports = restart_peak()
    work = default_work(case.num_samples, case.num_replicates)
    seconds = seconds_of(blocked_pass(work, case.estimator, case.block_size))
    on_device = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    report = {
        "peak_resident_bytes_above_imports": peak_resident() - resident_after_imports,
        "resident_bytes_after_imports": resident_after_imports,
        "peak_device_bytes": on_device,
        "seconds_with_compilation": seconds,
    }
    print(json.dumps(report))


def restart_peak() -> int:
    """Sets the peak back to what is resident now and returns it; the peak so far, where the system cannot."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_resident()


def peak_resident() -> int:
    """The process's peak in bytes. `ru_maxrss` is inherited from the parent on Linux, so it is the second choice."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _parse() -> MemoryCase:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("estimator")
    parser.add_argument("num_samples", type=int)
    parser.add_argument("num_replicates", type=int)
    parser.add_argument("block_size", type=int, nargs="?")
    return MemoryCase(**vars(parser.parse_args()))


if __name__ == "__main__":
    _print_peak(_parse())
