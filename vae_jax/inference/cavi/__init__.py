"""Coordinate-ascent variational inference: exact bounds that rise with every sweep."""

from vae_jax.inference.cavi.ascent import Ascent, ConjugateModel, StepInfo, run
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
from vae_jax.inference.cavi.weights import DirichletWeights, GivenWeights, log_num_labellings

__all__ = [
    "Ascent",
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
    "Simulation",
    "StepInfo",
    "earthquake_mixture",
    "earthquakes",
    "log_num_labellings",
    "normal_wishart_mixture",
    "points",
    "run",
]
