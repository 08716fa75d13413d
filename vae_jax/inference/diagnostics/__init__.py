"""Whether an approximate posterior can be believed."""

from vae_jax.inference.diagnostics.calibration import all_at_once, calibration, one_by_one
from vae_jax.inference.diagnostics.calibration_verdicts import Calibration, ParameterCalibration
from vae_jax.inference.diagnostics.pareto_smoothing import (
    HIGHEST_RELIABLE_SHAPE,
    GeneralizedParetoTail,
    ParetoSmoothed,
    effective_sample_size,
    fit_tail,
    pareto_smoothed,
    reliability_threshold,
    tail_length,
)
from vae_jax.inference.diagnostics.posterior_moments import (
    CorrelationDifference,
    MomentComparison,
    MomentDifference,
    PosteriorMoments,
    compare_moments,
    known_moments,
    moments_of_chains,
    moments_of_draws,
)

__all__ = [
    "HIGHEST_RELIABLE_SHAPE",
    "Calibration",
    "CorrelationDifference",
    "GeneralizedParetoTail",
    "MomentComparison",
    "MomentDifference",
    "ParameterCalibration",
    "ParetoSmoothed",
    "PosteriorMoments",
    "all_at_once",
    "calibration",
    "compare_moments",
    "effective_sample_size",
    "fit_tail",
    "known_moments",
    "moments_of_chains",
    "moments_of_draws",
    "one_by_one",
    "pareto_smoothed",
    "reliability_threshold",
    "tail_length",
]
