"""One pass of coordinate ascent over a mixture's events by a C loop that is fused by hand, as the floor of a sweep."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.inference import cavi
from vae_jax.inference.cavi.optimal_assignment import assign

SOURCE = Path(__file__).with_suffix(".c")

FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-shared", "-fPIC")


def fused_passes(
    model: cavi.GaussianPoissonMixture, data: cavi.LocatedCounts, folder: Path
) -> Callable[[int, int], float] | None:
    """Returns a function of a number of passes and of cores, or None without a compiler.

    The sums of one pass are checked against the mixture's.

    Args:
        model: whose initial state gives the coefficients.
        data: the events.
        folder: for the compiled library.
    """
    state = model.init(jax.random.key(0), data)
    features = np.ascontiguousarray(data.features)
    coefficients = np.ascontiguousarray(model._coefficients(state, data))
    library = _compiled(coefficients.shape[0], features.shape[0], folder)
    if library is None:
        return None
    sums = np.zeros(coefficients.shape)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (features, coefficients, sums)]

    def passes(number: int, num_cores: int) -> float:
        total = 0.0
        for _ in range(number):
            total = library.fused_mixture_pass(ctypes.c_long(features.shape[1]), ctypes.c_int(num_cores), *pointers)
        return total

    log_normalizer = passes(1, 1)
    expected = jax.jit(assign)(jnp.asarray(coefficients), data.features)
    np.testing.assert_allclose(sums, expected.sums, rtol=1e-3, atol=1e-3 * np.abs(sums).max())
    np.testing.assert_allclose(log_normalizer, expected.log_normalizer, rtol=1e-5)
    return passes


def _compiled(num_components: int, num_features: int, folder: Path) -> Any | None:
    """The library compiled for these sizes, if there is a compiler."""
    path = folder / "fused_mixture_pass.so"
    sizes = [f"-DK={num_components}", f"-DF={num_features}"]
    try:
        subprocess.run(["cc", *FLAGS, *sizes, str(SOURCE), "-o", str(path), "-lm"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the floor needs a C compiler with OpenMP, got {error}: its ratios are left out")
        return None
    library = ctypes.CDLL(str(path))
    library.fused_mixture_pass.restype = ctypes.c_double
    return library
