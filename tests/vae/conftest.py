"""What the tests of VAEs share."""

from functools import lru_cache

import pytest

from vae_jax.vae.training import training_loop


@pytest.fixture(autouse=True, scope="session")
def _initial_states_of_equal_experiments_are_of_one_program():
    """It would be compiled for each of many starts."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_loop, "_make_init", lru_cache(training_loop._make_init))
        yield
