"""The samples, chains and temperatures of the evidence estimators, as flags."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.settings import AT_LEAST_1, AT_LEAST_2

if TYPE_CHECKING:
    from vae_jax.inference.evidence import Budget


@dataclass(frozen=True)
class BudgetFlags:
    """Samples, chains and temperatures of the estimators."""

    num_samples: Annotated[int, AT_LEAST_2] = 10_000
    """Samples from the prior, from the proposal, and in all replicates of the bound together."""
    num_bound_samples: Annotated[int, AT_LEAST_1] = 50
    """Samples K of the importance-weighted bound."""
    num_chains: Annotated[int, AT_LEAST_2] = 256
    """Chains of annealed importance sampling."""
    num_temperatures: Annotated[int, AT_LEAST_2] = 100
    """Temperatures of annealing, both ends included."""
    num_leapfrog_steps: Annotated[int, AT_LEAST_1] = 5
    """Leapfrog steps of a transition between temperatures."""
    schedule: Literal["sigmoid", "linear", "geometric"] = "sigmoid"
    """The curve along which the temperatures rise."""
    start: Literal["prior", "fit"] = "prior"
    """The distribution that annealing starts from: the prior, or the proposal."""

    def build(self) -> "Budget":
        """The library's budget.

        Raises:
            Misuse: the numbers do not go together.
        """
        from vae_jax.inference.evidence import Budget

        with refusals_are_misuse():
            return Budget(**asdict(self))
