"""Strictness for every test, switched on before the package is imported."""

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
install_import_hook("vae_jax", "beartype.beartype")

# The tests compile far more than they compute. Each worker of a parallel run would otherwise take every core for it;
# without optimisation, the older emitters of JAX up to 0.10 compile five times as fast as the new.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level=0 "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
)


def pytest_configure(config):
    """A compilation cache for the commands that one worker's tests run, one after another.

    JAX writes its entries in place: a process that reads one meanwhile warns, which fails a test. What the tests
    compile themselves stays in memory.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    # Tracing makes many objects and few circles: collecting as often as Python does by default takes 6% of the time.
    gc.set_threshold(50_000, 20, 50)
    config.compilation_cache = tempfile.mkdtemp(prefix="vae_jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = config.compilation_cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


MOST_MAPPINGS = 20_000
"""Mappings of memory that a worker may hold between tests. XLA makes several for every program that it compiles, and
Linux refuses a process more than 65,530: XLA then dies. The tests compile thousands of programs."""

MOST_MEMORY = 1_500 * 2**20
"""Bytes that a worker may hold between tests, so that it stays below 2 GB. Compiled programs take most of them."""

TESTS_BETWEEN_COUNTS = 10


def pytest_runtest_teardown(item, nextitem):
    item.config.num_run = getattr(item.config, "num_run", 0) + 1
    if item.config.num_run % TESTS_BETWEEN_COUNTS == 0 and _holds_too_much():
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            # The C library keeps what is freed otherwise.
            ctypes.CDLL(None).malloc_trim(0)


def _holds_too_much():
    process = Path("/proc/self")
    if not process.exists():
        return False
    with (process / "maps").open() as file:
        num_mappings = sum(1 for _ in file)
    memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return num_mappings > MOST_MAPPINGS or memory > MOST_MEMORY


def pytest_unconfigure(config):
    shutil.rmtree(getattr(config, "compilation_cache", ""), ignore_errors=True)


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


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data. It is not part of the project: without it the tests that need it are skipped."""
    folder = Path(os.environ.get("VAE_JAX_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        absent = f"the test data are not in {folder}: VAE_JAX_TEST_DATA names another folder"
        if os.environ.get("VAE_JAX_REQUIRE_DATA") == "1":
            pytest.fail(absent)
        pytest.skip(absent)
    return folder


@pytest.fixture(scope="session")
def mnist_folder(data_folder):
    """MNIST as four gzip'd IDX files."""
    return data_folder / "mnist"
