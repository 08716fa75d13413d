"""Variational inference beyond one gradient: from a log density to its posterior."""

from vae_jax.inference import cavi, evidence
from vae_jax.inference.diagnostics import (
    Calibration,
    CorrelationDifference,
    GeneralizedParetoTail,
    MomentComparison,
    MomentDifference,
    ParameterCalibration,
    ParetoSmoothed,
    PosteriorMoments,
    calibration,
    compare_moments,
    fit_tail,
    known_moments,
    moments_of_chains,
    moments_of_draws,
    pareto_smoothed,
    reliability_threshold,
    tail_length,
)
from vae_jax.inference.fit.coupling_flow import CouplingFlow
from vae_jax.inference.fit.elbo_plateau import ElboPlateau
from vae_jax.inference.fit.families import Factor, FullRankNormal, LowRankNormal, MeanField, MeanFieldNormal
from vae_jax.inference.fit.fit import Fit, fit
from vae_jax.inference.fit.minibatches import Minibatched
from vae_jax.inference.fit.numpyro_models import numpyro_log_joint
from vae_jax.inference.laplace import FactorialApproximation, LaplaceApproximation, approximate_factorial, laplace
from vae_jax.inference.latent_space import Support

__all__ = [
    "Calibration",
    "CorrelationDifference",
    "CouplingFlow",
    "ElboPlateau",
    "Factor",
    "FactorialApproximation",
    "Fit",
    "FullRankNormal",
    "GeneralizedParetoTail",
    "LaplaceApproximation",
    "LowRankNormal",
    "MeanField",
    "MeanFieldNormal",
    "Minibatched",
    "MomentComparison",
    "MomentDifference",
    "ParameterCalibration",
    "ParetoSmoothed",
    "PosteriorMoments",
    "Support",
    "approximate_factorial",
    "calibration",
    "cavi",
    "compare_moments",
    "evidence",
    "fit",
    "fit_tail",
    "known_moments",
    "laplace",
    "moments_of_chains",
    "moments_of_draws",
    "numpyro_log_joint",
    "pareto_smoothed",
    "reliability_threshold",
    "tail_length",
]
