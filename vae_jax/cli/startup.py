"""Setting JAX up for a command, and saying what it ran on."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from vae_jax.cli.misuse import Misuse

PACKAGES = ("vae_jax", "jax", "jaxlib", "flax", "optax", "numpyro", "numpy", "scipy")
MAX_SEED = 2**32
DTYPES = ("float32", "float64")


def start_jax(dtype: str, *, num_cpu_devices: int | None = None) -> None:
    """Configures JAX before its first use: its CPU devices, a private compilation cache, the precision.

    Args:
        dtype: float32 or float64.
        num_cpu_devices: by default one for each core, among which replicates are shared. Work for a single device has
            all cores only where there is no other.

    Raises:
        Misuse: an unknown dtype.
    """
    if dtype not in DTYPES:
        raise Misuse(f"--dtype must be one of {', '.join(DTYPES)}, got {dtype}: choose of these")
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_num_cpu_devices", num_cpu_devices or num_cores())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _use_private_cache()


def check_seed(seed: int) -> None:
    """Refuses a seed that is none of JAX's.

    Raises:
        Misuse: it is out of range.
    """
    if not 0 <= seed < MAX_SEED:
        raise Misuse(f"--seed must be from 0 to {MAX_SEED - 1}, got {seed}: change it")


def num_cores() -> int:
    """Cores that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _use_private_cache() -> None:
    """Compiled programs are native code: the cache is the user's alone, and done without where it cannot be."""
    import jax

    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_jax"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        if cache.stat().st_uid != os.getuid() or cache.stat().st_mode & 0o022:
            return
    except (OSError, RuntimeError):
        # RuntimeError: the user has no home.
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    # By default only what takes over a second is kept, which is none of the small programs around the large one.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def environment(dtype: str, seed: int) -> dict[str, Any]:
    """Versions, devices, precision, seed and source revision."""
    import jax

    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "dtype": dtype,
        "seed": seed,
        "git_revision": _git_revision(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _git_revision() -> str | None:
    """The revision of the checkout that the package lies in, if it does."""
    package = Path(__file__).resolve().parents[1]
    if not (package.parent / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", package.parent, "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip()
