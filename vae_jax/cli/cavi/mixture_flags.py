"""The mixtures of `vae-jax cavi` and their hyperparameters, as flags."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.options import optional
from vae_jax.settings import FINITE_AND_POSITIVE, LEFT_OUT, AppliesWith, documented

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.inference.cavi import Simulation

MixtureName: TypeAlias = Literal["gaussian-poisson", "normal-wishart"]
GAUSSIAN_POISSON, NORMAL_WISHART = get_args(MixtureName)

WITH_COUNTS = AppliesWith(model=(GAUSSIAN_POISSON,))
WITH_COVARIANCES = AppliesWith(model=(NORMAL_WISHART,))

DEPENDENT = 3e-4
"""Standardised columns whose smallest singular value is below this share of the largest have a covariance that is
singular in single precision."""

SIMULATED = {"position_precision": 25.0, "prior_precision": 1.0, "concentration": 2.0, "mean_count": 20.0}
"""Hyperparameters of simulations where none are given: clusters a fifth as wide as they are spread."""


@dataclass(frozen=True)
@documented
class PriorFlags:
    """Hyperparameters. Defaults are on the data's own scale: v is the positions' variance, averaged over dimensions.

    None depends on the number of components, so that bounds compare.
    """

    position_precision: Annotated[float | None, FINITE_AND_POSITIVE, WITH_COUNTS, optional("FLOAT")] = None
    """tau, the precision (1 / variance) of the positions within a cluster, which is known and the same for all
    clusters. By default 25 / v: clusters are a fifth as wide as the data."""
    prior_loc: Annotated[tuple[float, ...] | None, optional("FLOAT [FLOAT ...]")] = None
    """Mean of the components' centres, one number for each position column. By default the events' mean."""
    prior_precision: Annotated[float | None, FINITE_AND_POSITIVE, WITH_COUNTS, optional("FLOAT")] = None
    """rho, the precision of the components' centres (1 / variance). By default 1 / v."""
    concentration: Annotated[float | None, FINITE_AND_POSITIVE, WITH_COUNTS, optional("FLOAT")] = None
    """alpha of the Gamma prior of the rates. By default 1 (2 in simulations)."""
    rate: Annotated[float | None, FINITE_AND_POSITIVE, WITH_COUNTS, optional("FLOAT")] = None
    """beta of the Gamma prior of the rates. By default alpha over the mean count (over 20 in simulations)."""
    weights: Annotated[tuple[float, ...] | None, optional("FLOAT [FLOAT ...]")] = None
    """Fixed weights of the components, which sum to one. By default they are inferred."""
    weight_concentration: Annotated[
        float | None, FINITE_AND_POSITIVE, AppliesWith(weights=LEFT_OUT), optional("FLOAT")
    ] = None
    """Concentration of the weights' symmetric Dirichlet prior. By default 1. Smaller ones favour empty components."""
    prior_count: Annotated[float | None, FINITE_AND_POSITIVE, WITH_COVARIANCES, optional("FLOAT")] = None
    """Weight of the prior of a component's centre, as a number of events. By default 1."""
    degrees: Annotated[float | None, FINITE_AND_POSITIVE, WITH_COVARIANCES, optional("FLOAT")] = None
    """Degrees of freedom of the Wishart prior of the precisions. By default the number of position columns. The
    prior's scale is the inverse of the data's covariance."""

    def check_places(self, model: MixtureName, places: "Mapping[str, np.ndarray]", path: Path) -> None:
        """Refuses columns of places that the model's defaults cannot be computed from.

        Raises:
            Misuse: all places are the same, or, in the normal-wishart model, on one line or plane.
        """
        import numpy as np

        names = ", ".join(f"'{name}'" for name in places)
        constant = [name for name, values in places.items() if np.ptp(values) == 0]
        if model == GAUSSIAN_POISSON:
            if len(constant) == len(places) and None in (self.position_precision, self.prior_precision):
                point = ", ".join(f"{values[0]:g}" for values in places.values())
                raise Misuse(
                    f"{names} of {path} must differ from row to row, got {point} in all of them: give "
                    "--position-precision and --prior-precision"
                )
            return
        for name in constant[:1]:
            raise Misuse(
                f"column '{name}' of {path} must differ from row to row, got {places[name][0]:g} in all of them: "
                "leave it out"
            )
        # Divided by the largest first, so that no square overflows.
        centred = (values / np.abs(values).max() for values in places.values())
        centred = (values - values.mean() for values in centred)
        rank = np.linalg.matrix_rank(np.stack([values / values.std() for values in centred]), rtol=DEPENDENT)
        if rank < len(places):
            raise Misuse(
                f"{names} of {path} must be linearly independent in the {NORMAL_WISHART} model, got rank {rank}: "
                "leave columns out"
            )

    def build(self, model: MixtureName) -> Callable[[Any, int], Any]:
        """A function from data and a number of components to the mixture."""
        from vae_jax.inference.cavi import gaussian_poisson_mixture, normal_wishart_mixture

        make = gaussian_poisson_mixture if model == GAUSSIAN_POISSON else normal_wishart_mixture
        given = self._given()
        return lambda data, num_components: make(data, num_components, weights=self._weights(num_components), **given)

    def simulate(self, key: Any, num_events: int, num_components: int, num_dimensions: int) -> "Simulation":
        """Draws a truth from the prior, and events under it.

        Raises:
            ValueError: a hyperparameter is out of its range.
        """
        import numpy as np

        from vae_jax.inference.cavi import gaussian_poisson_mixture, located_counts

        filled = self.filled_for_simulation(num_dimensions)
        # The prior needs no data where every hyperparameter is given, except for their number and dimensions.
        size = max(num_components, 1)
        blank = located_counts(np.zeros((size, num_dimensions)), np.zeros(size))
        mixture = gaussian_poisson_mixture(
            blank, num_components, weights=filled._weights(num_components), **filled._given()
        )
        return mixture.simulate(key, num_events)

    def filled_for_simulation(self, num_dimensions: int) -> "PriorFlags":
        """The same with every hyperparameter that events are drawn and fitted under filled in."""
        concentration = SIMULATED["concentration"] if self.concentration is None else self.concentration
        defaults = {
            "position_precision": SIMULATED["position_precision"],
            "prior_loc": (0.0,) * num_dimensions,
            "prior_precision": SIMULATED["prior_precision"],
            "concentration": concentration,
            "rate": concentration / SIMULATED["mean_count"],
        }
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def _given(self) -> dict[str, Any]:
        """The hyperparameters of the clusters that were given."""
        import numpy as np

        weights = ("weights", "weight_concentration")
        given = {name: value for name, value in asdict(self).items() if value is not None and name not in weights}
        return given if self.prior_loc is None else given | {"prior_loc": np.array(self.prior_loc)}

    def _weights(self, num_components: int) -> Any:
        import jax.numpy as jnp

        from vae_jax.inference.cavi import DirichletWeights, GivenWeights

        if self.weights is not None:
            return GivenWeights(jnp.array(self.weights))
        concentration = 1.0 if self.weight_concentration is None else self.weight_concentration
        return DirichletWeights(jnp.full(num_components, concentration))
