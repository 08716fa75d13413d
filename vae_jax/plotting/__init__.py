"""Every figure: functions from results to a matplotlib Figure."""

from vae_jax.plotting.comparison import variance_ratios
from vae_jax.plotting.curves import bound_gap, training_curves
from vae_jax.plotting.estimators import boxes_by_estimator, std_by_estimator
from vae_jax.plotting.images import image_grid, interpolation, manifold, reconstructions
from vae_jax.plotting.laplace import factorial_errors
from vae_jax.plotting.latents import kl_by_latent, kl_by_rank, latent_scatter
from vae_jax.plotting.style import COLOURS, MARKERS, STYLE
from vae_jax.plotting.variance import replicate_boxes, signal_to_noise_by_layer, std_by_samples

__all__ = [
    "COLOURS",
    "MARKERS",
    "STYLE",
    "bound_gap",
    "boxes_by_estimator",
    "factorial_errors",
    "image_grid",
    "interpolation",
    "kl_by_latent",
    "kl_by_rank",
    "latent_scatter",
    "manifold",
    "reconstructions",
    "replicate_boxes",
    "signal_to_noise_by_layer",
    "std_by_estimator",
    "std_by_samples",
    "training_curves",
    "variance_ratios",
]
