"""Settings of a process before JAX starts: XLA flags, devices, the compilation cache, versions.

Importing this file does not import JAX.
"""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"

WITHOUT_REDUCTIONS = f"--{FUSION_FLAG}=-reduce"

DtypeName: TypeAlias = Literal["float32", "float64"]

PACKAGES = ("vae_jax", "jax", "jaxlib", "flax", "optax", "numpyro", "numpy", "scipy")


def has_faulty_reductions(version: str) -> bool:
    """Whether a version of jaxlib may sum wrong numbers on CPUs: observed in 0.11.2 and 0.12.0.

    A later one may no longer know the flag, which would end the process.

    Example:
        >>> import vae_jax as vj
        >>> vj.runtime.has_faulty_reductions("0.10.0"), vj.runtime.has_faulty_reductions("0.12.0")
        (False, True)
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    return (0, 11) <= (major, minor) < (0, 13)


def keep_reductions_right() -> None:
    """Keeps XLA from handing reductions on CPUs to YNNPACK, which is known to sum wrong numbers.

    In x -> sum(log(u) - u, axis=1) with u = reshape(c x), the last u comes out as x: what was done before the reshape
    is lost where a value is used twice. A mean of an ELBO over samples has this form. XLA reads its flags at the first
    computation; a user's own setting of this flag is kept.

    Example:
        >>> import importlib.metadata
        >>> import os
        >>> import vae_jax as vj  # importing the package calls the function
        >>> faulty = vj.runtime.has_faulty_reductions(importlib.metadata.version("jaxlib"))
        >>> not faulty or vj.runtime.FUSION_FLAG in os.environ["XLA_FLAGS"]
        True
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FUSION_FLAG in flags or not has_faulty_reductions(importlib.metadata.version("jaxlib")):
        return
    os.environ["XLA_FLAGS"] = f"{flags} {WITHOUT_REDUCTIONS}".strip()
    if _has_started():
        warnings.warn(
            f"vae_jax must be imported before JAX's first computation, got a JAX at work, whose sums may be wrong on "
            f"CPUs in this version: import vae_jax first, or set XLA_FLAGS={WITHOUT_REDUCTIONS}",
            stacklevel=3,
        )


def _has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()


def start_jax(dtype: str = "float32", *, num_cpu_devices: int | None = None) -> None:
    """Configures JAX before its first use: the CPU devices, a private compilation cache and the precision.

    Args:
        dtype: float32 or float64.
        num_cpu_devices: the number of devices that the CPU is divided into, by default one for each core. Replicates
            are shared among them. Work for a single device has all cores only where there is no other device.

    Raises:
        ValueError: an unknown dtype.

    Example:
        >>> import vae_jax as vj
        >>> vj.runtime.start_jax("float64", num_cpu_devices=1)  # doctest: +SKIP
        >>> vj.runtime.start_jax("float16")
        Traceback (most recent call last):
        ValueError: dtype must be one of float32, float64, got float16: use one of these
    """
    if dtype not in get_args(DtypeName):
        raise ValueError(f"dtype must be one of {', '.join(get_args(DtypeName))}, got {dtype}: use one of these")
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_num_cpu_devices", num_cpu_devices or num_cores())
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _use_private_cache()


def num_cores() -> int:
    """The number of cores that this process may use, where the system reports it.

    Example:
        >>> import vae_jax as vj
        >>> vj.runtime.num_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _use_private_cache() -> None:
    """Keeps compiled programs between processes.

    They are native code: the cache belongs to the user alone, or there is none.
    """
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
    _replace_damaged_entries(cache)


_DAMAGED_ENTRY = re.compile(r"Error reading persistent compilation cache entry for '(\w+)'")


def _replace_damaged_entries(cache: Path) -> None:
    """Removes an entry that JAX warns of, which it keeps: it would compile the program, and warn, in every run."""
    show = warnings.showwarning

    def replace(message: Warning | str, *details: Any, **more: Any) -> None:
        found = _DAMAGED_ENTRY.match(str(message))
        if found is None:
            show(message, *details, **more)
            return
        for path in cache.glob(f"{found[1]}-*"):
            path.unlink(missing_ok=True)

    warnings.showwarning = replace


def wide_vectors() -> dict[str, int] | None:
    """Compiler options for `jax.jit` that speed up elementwise arithmetic on CPUs; None elsewhere.

    XLA keeps to vectors of 256 bits on CPUs that have 512: a step of Adam then takes 1.6 times as long. Narrower
    CPUs use what they have.

    Example:
        >>> import jax
        >>> import vae_jax as vj
        >>> square = jax.jit(lambda x: x**2, compiler_options=vj.runtime.wide_vectors())
        >>> float(square(3.0))
        9.0
    """
    import jax

    return {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else None


def environment(dtype: str, seed: int) -> dict[str, Any]:
    """Describes the versions, devices, precision, seed and source revision that results are saved with.

    Args:
        dtype: the precision, float32 or float64. It is recorded, not checked.
        seed: the seed of the results.

    Returns:
        A dictionary that can be saved as JSON, with the keys versions, device, dtype, seed, git_revision and date.

    Example:
        >>> import vae_jax as vj
        >>> described = vj.runtime.environment("float32", seed=7)
        >>> described["seed"], described["dtype"], sorted(described["device"])
        (7, 'float32', ['count', 'kind', 'platform'])
    """
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
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", checkout, "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return git.stdout.strip()
