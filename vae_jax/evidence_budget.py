"""The samples, chains and temperatures that estimators of the log evidence may use: plain data that imports no JAX."""

from dataclasses import dataclass
from typing import Annotated, Literal

from vae_jax.settings import AT_LEAST_1, AT_LEAST_2, check_settings, documented


@dataclass(frozen=True)
@documented
class Budget:
    """Numbers of samples, chains and temperatures for the estimators of the log evidence.

    Example:
        >>> from vae_jax.inference.evidence import Budget
        >>> Budget(num_chains=1).check()
        Traceback (most recent call last):
        ValueError: num_chains must be at least 2, got 1: choose another number
    """

    num_samples: Annotated[int, AT_LEAST_2] = 10_000
    """Samples for each of the prior, the proposal and the bound (all its replicates together)."""
    num_bound_samples: Annotated[int, AT_LEAST_1] = 50
    """Samples K of the importance-weighted bound."""
    num_chains: Annotated[int, AT_LEAST_2] = 256
    """Chains of annealed importance sampling."""
    num_temperatures: Annotated[int, AT_LEAST_2] = 100
    """Temperatures of annealing, both ends included."""
    num_leapfrog_steps: Annotated[int, AT_LEAST_1] = 5
    """Leapfrog steps at each temperature."""
    schedule: Literal["sigmoid", "linear", "geometric"] = "sigmoid"
    """The curve along which the temperatures rise."""
    start: Literal["prior", "fit"] = "prior"
    """The distribution that annealing starts from: the prior, or the proposal."""

    def check(self) -> None:
        """Checks that the numbers are large enough and go together, and that the names are known.

        Raises:
            ValueError: one line that names the setting, what it must be and what it was.
        """
        check_settings(self)
        if self.num_samples < 2 * self.num_bound_samples:
            raise ValueError(
                f"num_samples must be at least twice num_bound_samples, got {self.num_samples} and "
                f"{self.num_bound_samples}: the bound's error needs two replicates"
            )
