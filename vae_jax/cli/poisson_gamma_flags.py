"""The data and the priors of the poisson-gamma problem, as flags that several commands share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from vae_jax.cli.csv_numbers import read_counts
from vae_jax.cli.options import optional
from vae_jax.settings import FINITE_AND_POSITIVE, AppliesWith, documented

if TYPE_CHECKING:
    from vae_jax.problems import PoissonGamma

POISSON_GAMMA = "poisson-gamma"

IS_CHOSEN = AppliesWith(problem=(POISSON_GAMMA,))


@dataclass(frozen=True)
@documented
class PoissonGammaFlags:
    """The problem x_i ~ Poisson(u v), with Gamma priors of u and v."""

    data: Annotated[tuple[str, ...] | None, IS_CHOSEN, optional("[COUNT ...]|FILE.csv")] = None
    """Counts, or one CSV file with a count a line. By default the published ten."""
    prior_u: Annotated[tuple[float, float], FINITE_AND_POSITIVE, IS_CHOSEN] = (5.0, 1.0)
    """Concentration and rate of the prior of u."""
    prior_v: Annotated[tuple[float, float], FINITE_AND_POSITIVE, IS_CHOSEN] = (4.0, 4.0)
    """Concentration and rate of the prior of v."""

    def counts(self) -> tuple[float, ...] | None:
        """The data written out, which needs no JAX; None for the published ones.

        Raises:
            Misuse: the data are not counts.
        """
        return None if self.data is None else read_counts(self.data)

    def build(self, counts: tuple[float, ...] | None, **others: Any) -> "PoissonGamma":
        """The problem.

        Args:
            counts: the data written out.
            **others: arguments of the problem that are no flags here.

        Raises:
            ValueError: the problem refuses its arguments.
        """
        from vae_jax.problems import GammaPrior, PoissonGamma

        data: dict[str, Any] = {} if counts is None else {"counts": counts}
        return PoissonGamma(**data, prior_u=GammaPrior(*self.prior_u), prior_v=GammaPrior(*self.prior_v), **others)
