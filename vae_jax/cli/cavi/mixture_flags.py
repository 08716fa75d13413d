"""The mixtures of `vae-jax cavi` and their hyperparameters, as flags."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.options import flag_of, optional
from vae_jax.settings import FINITE_AND_POSITIVE

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.inference.cavi import Simulation

Model: TypeAlias = Literal["gaussian-poisson", "normal-wishart"]
GAUSSIAN_POISSON, NORMAL_WISHART = MODELS = get_args(Model)

CLUSTERS_OF = {
    GAUSSIAN_POISSON: ("position_precision", "prior_precision", "concentration", "rate"),
    NORMAL_WISHART: ("prior_count", "degrees"),
}
"""The hyperparameters of one model alone."""

DEPENDENT = 3e-4
"""Standardised columns whose smallest singular value is below this share of the largest have a covariance that is
singular in single precision."""

SIMULATED = {"position_precision": 25.0, "prior_precision": 1.0, "concentration": 2.0, "mean_count": 20.0}
"""Hyperparameters of simulations where none are given: clusters a fifth as wide as they are spread."""


POSITION_PRECISION_HELP = (
    "tau of the gaussian-poisson model: one over the variance of events about their cluster's place, known and alike "
    "in all. By default 25 / v: clusters are a fifth as wide as the data."
)
PRIOR_LOC_HELP = "Where clusters are around, a number a position column. By default the events' mean."
PRIOR_PRECISION_HELP = "rho of the gaussian-poisson model: one over the variance of clusters' places. By default 1 / v."
CONCENTRATION_HELP = "alpha of the Gamma prior of the rates. By default 1 (2 in simulations)."
RATE_HELP = "beta of the Gamma prior of the rates. By default alpha over the mean count (over 20 in simulations)."
WEIGHTS_HELP = "Given weights of the components, which sum to one. By default they are inferred."
WEIGHT_CONCENTRATION_HELP = (
    "Concentration of the weights' symmetric Dirichlet prior, where they are not given. By default 1. Smaller ones "
    "favour empty components."
)
PRIOR_COUNT_HELP = "Events that the prior of a place is worth in the normal-wishart model. By default 1."
DEGREES_HELP = (
    "Degrees of freedom of the Wishart prior of the precisions in the normal-wishart model. By default the number of "
    "position columns. Its scale is the inverse of the data's covariance."
)


@dataclass(frozen=True)
class Prior:
    """Hyperparameters. Defaults are on the data's own scale: v is the positions' variance, averaged over dimensions.

    None depends on the number of components, so that bounds compare.
    """

    position_precision: Annotated[float | None, optional("FLOAT", POSITION_PRECISION_HELP)] = None
    prior_loc: Annotated[tuple[float, ...] | None, optional("FLOAT [FLOAT ...]", PRIOR_LOC_HELP)] = None
    prior_precision: Annotated[float | None, optional("FLOAT", PRIOR_PRECISION_HELP)] = None
    concentration: Annotated[float | None, optional("FLOAT", CONCENTRATION_HELP)] = None
    rate: Annotated[float | None, optional("FLOAT", RATE_HELP)] = None
    weights: Annotated[tuple[float, ...] | None, optional("FLOAT [FLOAT ...]", WEIGHTS_HELP)] = None
    weight_concentration: Annotated[float | None, FINITE_AND_POSITIVE, optional("FLOAT", WEIGHT_CONCENTRATION_HELP)] = (
        None
    )
    prior_count: Annotated[float | None, optional("FLOAT", PRIOR_COUNT_HELP)] = None
    degrees: Annotated[float | None, optional("FLOAT", DEGREES_HELP)] = None

    def check(self, model: Model) -> None:
        """Refuses hyperparameters of the other model, and weights both given and inferred.

        Raises:
            Misuse: naming the flag.
        """
        for other in set(MODELS) - {model}:
            for name in CLUSTERS_OF[other]:
                if getattr(self, name) is not None:
                    raise Misuse(f"{flag_of(name)} applies to --model {other}, got --model {model}: leave it out")
        if self.weights is not None and self.weight_concentration is not None:
            raise Misuse("--weights and --weight-concentration must not both be given, got both: leave one out")

    def check_places(self, model: Model, places: "Mapping[str, np.ndarray]", path: Path) -> None:
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

    def build(self, model: Model) -> Callable[[Any, int], Any]:
        """A function from data and a number of components to the mixture."""
        from vae_jax.inference.cavi import gaussian_poisson_mixture, normal_wishart_mixture

        make = gaussian_poisson_mixture if model == GAUSSIAN_POISSON else normal_wishart_mixture
        names = ("prior_loc", *CLUSTERS_OF[model])
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
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
        given = {name: getattr(filled, name) for name in ("prior_loc", *CLUSTERS_OF[GAUSSIAN_POISSON])}
        weights = filled._weights(num_components)
        return gaussian_poisson_mixture(blank, num_components, weights=weights, **given).simulate(key, num_events)

    def filled_for_simulation(self, num_dimensions: int) -> "Prior":
        """The same with every hyperparameter that events are drawn and fitted under filled in."""
        concentration = SIMULATED["concentration"] if self.concentration is None else self.concentration
        defaults = {
            "position_precision": SIMULATED["position_precision"],
            "prior_loc": (0.0,) * num_dimensions,
            "prior_precision": SIMULATED["prior_precision"],
            "concentration": concentration,
            "rate": concentration / SIMULATED["mean_count"],
        }
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return Prior(**{**defaults, **given})

    def _weights(self, num_components: int) -> Any:
        import jax.numpy as jnp

        from vae_jax.inference.cavi import DirichletWeights, GivenWeights

        if self.weights is not None:
            return GivenWeights(jnp.array(self.weights))
        concentration = 1.0 if self.weight_concentration is None else self.weight_concentration
        return DirichletWeights(jnp.full(num_components, concentration))
