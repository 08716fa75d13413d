"""The peak memory of this process and of its device, in bytes."""

import contextlib
import resource
import sys
from pathlib import Path

import jax

STATUS = Path("/proc/self/status")


def restart_peak() -> int:
    """Sets the peak back to what is resident now and returns it; the peak so far, where the system cannot."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_resident()


def peak_resident() -> int:
    """The process's peak. `ru_maxrss` is inherited from the parent on Linux, so it is the second choice."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_on_device() -> int | None:
    """The peak on the first device, where it is counted: not on CPUs."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
