import importlib.metadata
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax  # noqa: F401
from vae_jax import runtime
from vae_jax.runtime import FUSION_FLAG, has_faulty_reductions, keep_reductions_right

SUM_OF_A_RESHAPED_PRODUCT = """
import numpy as np
{first}
import jax
import jax.numpy as jnp

def f(x):
    u = (x * 0.1).reshape(-1, 4)
    return (jnp.log(u) - u).sum(1)

x = np.linspace(30, 60, 80_000, dtype=np.float32)
u = (x.astype(float) * 0.1).reshape(-1, 4)
{then}
print(abs(jax.jit(f)(x) - (np.log(u) - u).sum(1)).max() < 1e-4)
"""


def run(first, then=""):
    program = SUM_OF_A_RESHAPED_PRODUCT.format(first=first, then=then)
    without = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=without, check=False)
    return outcome.stdout.strip(), outcome.stderr


def test_a_fused_sum_is_right():
    u = jnp.linspace(3.0, 6.0, 80_000)

    def summed(x):
        u = (x * 0.1).reshape(-1, 4)
        return (jnp.log(u) - u).sum(1)

    terms = np.asarray(u, float).reshape(-1, 4)
    np.testing.assert_allclose(jax.jit(summed)(10 * u), (np.log(terms) - terms).sum(1), rtol=1e-5)


def test_a_fused_sum_is_right_in_a_fresh_process():
    assert run("import vae_jax")[0] == "True"


@pytest.mark.skipif(
    not has_faulty_reductions(importlib.metadata.version("jaxlib")), reason="this jaxlib is not known to be faulty"
)
def test_an_import_after_the_first_computation_warns():
    assert "must be imported before JAX's first computation" in run("", "jnp.ones(3).sum()\nimport vae_jax")[1]


def test_a_setting_of_the_users_own_is_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{FUSION_FLAG}=reduce")
    keep_reductions_right()
    assert os.environ["XLA_FLAGS"] == f"--{FUSION_FLAG}=reduce"


@pytest.mark.parametrize(
    ("version", "faulty"), [("0.10.2", False), ("0.11.2", True), ("0.12.0.1", True), ("0.13.0", False)]
)
def test_the_faulty_versions_are_known(version, faulty):
    assert has_faulty_reductions(version) == faulty


def test_a_damaged_entry_of_the_cache_is_replaced(tmp_path, monkeypatch):
    """JAX warns of it in every run, and keeps it."""
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *details, **more: shown.append(str(message)))
    runtime._replace_damaged_entries(tmp_path)
    for name in ("jit_f-0a1b-cache", "jit_f-2c-cache", "jit_fg-0a-cache"):
        (tmp_path / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # `catch_warnings` has set the function back.
        runtime._replace_damaged_entries(tmp_path)
        warnings.warn("Error reading persistent compilation cache entry for 'jit_f': ZstdError: cut", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [path.name for path in tmp_path.iterdir()] == ["jit_fg-0a-cache"]
    assert shown == ["another"]
