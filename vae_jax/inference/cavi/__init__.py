"""Coordinate-ascent variational inference: exact bounds that rise with every sweep."""

from vae_jax.inference.cavi.component_selection import Candidate, Selection, choose_num_components, log_num_symmetries
from vae_jax.inference.cavi.conjugate_mixture import ConjugateMixture
from vae_jax.inference.cavi.coordinate_ascent import Ascent, ConjugateModel, StepInfo, ascend
from vae_jax.inference.cavi.fitted_components import Component, component_sizes, components, effective_num_components
from vae_jax.inference.cavi.gaussian_poisson_mixture import (
    GaussianPoissonFactors,
    GaussianPoissonMixture,
    Simulation,
    gaussian_poisson_mixture,
)
from vae_jax.inference.cavi.mixture_data import LocatedCounts, Points, located_counts, points
from vae_jax.inference.cavi.mixture_weights import DirichletWeights, GivenWeights, log_num_labellings
from vae_jax.inference.cavi.normal_model import NormalFactors, NormalModel
from vae_jax.inference.cavi.normal_wishart_mixture import (
    NormalWishartFactors,
    NormalWishartMixture,
    normal_wishart_mixture,
)
from vae_jax.inference.cavi.poisson_gamma_model import GammaFactor, PoissonGammaFactors, PoissonGammaModel
from vae_jax.inference.cavi.simulated_recovery import Recovery, recovery

__all__ = [
    "Ascent",
    "Candidate",
    "Component",
    "ConjugateMixture",
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
    "ascend",
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
]
