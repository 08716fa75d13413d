"""Coordinate-ascent variational inference: exact bounds that rise with every sweep."""

from vae_jax.inference.cavi.ascent import Ascent, ConjugateModel, StepInfo, run
from vae_jax.inference.cavi.components import Component, component_sizes, components, effective_num_components
from vae_jax.inference.cavi.earthquakes import (
    EarthquakeFactors,
    EarthquakeMixture,
    Earthquakes,
    Simulation,
    earthquake_mixture,
    earthquakes,
)
from vae_jax.inference.cavi.normal import NormalFactors, NormalModel
from vae_jax.inference.cavi.normal_wishart import (
    NormalWishartFactors,
    NormalWishartMixture,
    Points,
    normal_wishart_mixture,
    points,
)
from vae_jax.inference.cavi.poisson_gamma import GammaFactor, PoissonGammaFactors, PoissonGammaModel
from vae_jax.inference.cavi.recovery import Recovery, recovery
from vae_jax.inference.cavi.selection import (
    Candidate,
    Selection,
    choose_num_components,
    log_num_symmetries,
)
from vae_jax.inference.cavi.weights import DirichletWeights, GivenWeights, log_num_labellings

__all__ = [
    "Ascent",
    "Candidate",
    "Component",
    "ConjugateModel",
    "DirichletWeights",
    "EarthquakeFactors",
    "EarthquakeMixture",
    "Earthquakes",
    "GammaFactor",
    "GivenWeights",
    "NormalFactors",
    "NormalModel",
    "NormalWishartFactors",
    "NormalWishartMixture",
    "Points",
    "PoissonGammaFactors",
    "PoissonGammaModel",
    "Recovery",
    "Selection",
    "Simulation",
    "StepInfo",
    "choose_num_components",
    "component_sizes",
    "components",
    "earthquake_mixture",
    "earthquakes",
    "effective_num_components",
    "log_num_labellings",
    "log_num_symmetries",
    "normal_wishart_mixture",
    "points",
    "recovery",
    "run",
]
