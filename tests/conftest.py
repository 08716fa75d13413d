"""Strictness for every test, switched on before the package is imported."""

import os

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("vae_jax", "beartype.beartype")

# Each worker of a parallel run would otherwise take every core for its compilations.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")


@pytest.fixture
def float64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_dtypes():
    """No implicit promotion between dtypes for one test."""
    with jax.numpy_dtype_promotion("strict"):
        yield
