"""Coordinate-ascent variational inference: exact bounds that rise with every sweep."""

from vae_jax.inference.cavi.component_selection import Candidate, Selection, choose_num_components, log_num_symmetries
from vae_jax.inference.cavi.coordinate_ascent import Ascent, ConjugateModel, StepInfo, run
from vae_jax.inference.cavi.fitted_components import Component, component_sizes, components, effective_num_components
from vae_jax.inference.cavi.gaussian_poisson_mixture import (
    GaussianPoissonFactors,
    GaussianPoissonMixture,
    LocatedCounts,
    Simulation,
    gaussian_poisson_mixture,
    located_counts,
)
from vae_jax.inference.cavi.mixture_weights import DirichletWeights, GivenWeights, log_num_labellings
from vae_jax.inference.cavi.normal_model import NormalFactors, NormalModel
from vae_jax.inference.cavi.normal_wishart_mixture import (
    NormalWishartFactors,
    NormalWishartMixture,
    Points,
    normal_wishart_mixture,
    points,
)
from vae_jax.inference.cavi.poisson_gamma_model import GammaFactor, PoissonGammaFactors, PoissonGammaModel
from vae_jax.inference.cavi.simulated_recovery import Recovery, recovery

__all__ = [
    "Ascent",
    "Candidate",
    "Component",
    "ConjugateModel",
    "DirichletWeights",
    "GammaFactor",
    "GaussianPoissonFactors",
    "GaussianPoissonMixture",
    "GivenWeights",
    "LocatedCounts",
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
    "effective_num_components",
    "gaussian_poisson_mixture",
    "located_counts",
    "log_num_labellings",
    "log_num_symmetries",
    "normal_wishart_mixture",
    "points",
    "recovery",
    "run",
]
