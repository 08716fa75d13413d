"""A fault of the compiler that is switched off before JAX starts. Nothing here imports JAX."""

import importlib.metadata
import os
import sys
import warnings

FUSION_FLAG = "xla_cpu_experimental_ynn_fusion_type"

WITHOUT_REDUCTIONS = f"--{FUSION_FLAG}=-reduce"


def is_faulty(version: str) -> bool:
    """Whether the reductions of this jaxlib may be wrong on CPUs: seen in 0.11.2 and 0.12.0.

    A later one may no longer know the flag, which would end the process.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    return (0, 11) <= (major, minor) < (0, 13)


def keep_reductions_right() -> None:
    """Keeps XLA from handing reductions on CPUs to YNNPACK, where it is known to sum wrong numbers.

    In x -> sum(log(u) - u, axis=1) with u = reshape(c x), the last u comes out as x: what was done before the reshape
    is lost where a value is used twice. A mean of an ELBO over samples has this form. XLA reads its flags at the first
    computation; a user's own setting of this flag is kept.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FUSION_FLAG in flags or not is_faulty(importlib.metadata.version("jaxlib")):
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
