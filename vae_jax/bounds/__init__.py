"""Bounds on the log marginal likelihood, and estimates of it, from log weights."""

from vae_jax.bounds.bias_corrected import jackknife
from vae_jax.bounds.evidence_lower_bound import ElboTerms, elbo, elbo_terms
from vae_jax.bounds.importance import (
    MultiSampleBound,
    doubly_reparameterized,
    importance_weighted,
    multi_sample_score_function,
    plain,
    vimco,
)
from vae_jax.bounds.registry import BOUNDS, RegisteredBound
from vae_jax.bounds.renyi_bounds import chi, renyi
from vae_jax.bounds.wake_sleep import sleep_loss, wake_inference_loss, wake_model_loss
from vae_jax.bounds.weights import log_weights

__all__ = [
    "BOUNDS",
    "ElboTerms",
    "MultiSampleBound",
    "RegisteredBound",
    "chi",
    "doubly_reparameterized",
    "elbo",
    "elbo_terms",
    "importance_weighted",
    "jackknife",
    "log_weights",
    "multi_sample_score_function",
    "plain",
    "renyi",
    "sleep_loss",
    "vimco",
    "wake_inference_loss",
    "wake_model_loss",
]
