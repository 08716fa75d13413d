"""Every figure: functions from results to a matplotlib Figure."""

from vae_jax.plotting.bound_gap import bound_gap
from vae_jax.plotting.calibration_histograms import calibration_histograms
from vae_jax.plotting.cavi import counts_by_component, elbo_by_num_components, elbo_by_sweep, responsibility_map
from vae_jax.plotting.elbo_ascent import ElboAscent
from vae_jax.plotting.estimates_by_estimator import boxes_by_estimator, std_by_estimator
from vae_jax.plotting.estimates_by_samples import replicate_boxes, std_by_samples
from vae_jax.plotting.evidence import evidence_by_image, evidence_by_latents
from vae_jax.plotting.factorial_errors import factorial_errors
from vae_jax.plotting.fit import PairDensity, fitted_pair
from vae_jax.plotting.image_grids import image_grid, interpolation, manifold, reconstructions
from vae_jax.plotting.importance_tail import importance_tail
from vae_jax.plotting.kl_by_latent import kl_by_latent, kl_by_rank
from vae_jax.plotting.latent_scatter import latent_scatter
from vae_jax.plotting.moment_differences import moment_differences
from vae_jax.plotting.regress import Coefficients, FittedMean, regression_fit
from vae_jax.plotting.signal_to_noise import signal_to_noise_by_layer
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE
from vae_jax.plotting.training_curves import training_curves
from vae_jax.plotting.variance_ratios import variance_ratios

__all__ = [
    "COLOURS",
    "MARKERS",
    "STYLE",
    "Coefficients",
    "ElboAscent",
    "FittedMean",
    "PairDensity",
    "bound_gap",
    "boxes_by_estimator",
    "calibration_histograms",
    "counts_by_component",
    "elbo_by_num_components",
    "elbo_by_sweep",
    "evidence_by_image",
    "evidence_by_latents",
    "factorial_errors",
    "fitted_pair",
    "image_grid",
    "importance_tail",
    "interpolation",
    "kl_by_latent",
    "kl_by_rank",
    "latent_scatter",
    "manifold",
    "moment_differences",
    "reconstructions",
    "regression_fit",
    "replicate_boxes",
    "responsibility_map",
    "signal_to_noise_by_layer",
    "std_by_estimator",
    "std_by_samples",
    "training_curves",
    "variance_ratios",
]
