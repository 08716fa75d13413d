"""Bounds on the log marginal likelihood, and estimates of it, from log weights."""

from vae_jax.bounds.bound_registry import BOUNDS, RegisteredBound, bound_table
from vae_jax.bounds.elbo import ElboTerms, elbo, elbo_terms
from vae_jax.bounds.importance_weighted import (
    MultiSampleBound,
    doubly_reparameterized,
    importance_weighted,
    multi_sample_score_function,
    plain,
    vimco,
)
from vae_jax.bounds.jackknife import jackknife
from vae_jax.bounds.log_weights import log_weights
from vae_jax.bounds.renyi import chi, renyi
from vae_jax.bounds.wake_sleep import sleep_loss, wake_inference_loss, wake_model_loss

__all__ = [
    "BOUNDS",
    "ElboTerms",
    "MultiSampleBound",
    "RegisteredBound",
    "bound_table",
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
