"""The log marginal likelihood, each estimate with its error and with what says whether the error can be believed."""

from vae_jax.evidence_budget import Budget
from vae_jax.inference.evidence.annealing import (
    AnnealedChains,
    Annealing,
    annealed_chains,
    annealed_importance_sampling,
    reverse_annealing,
)
from vae_jax.inference.evidence.evidence_comparison import ESTIMATES, compare_estimates
from vae_jax.inference.evidence.evidence_estimate import EvidenceEstimate, estimate_from_weights
from vae_jax.inference.evidence.importance_sampling import (
    importance_sampling,
    importance_weighted_bound,
    prior_sampling,
)
from vae_jax.inference.evidence.temperature_schedules import SCHEDULES, geometric, linear, sigmoid

__all__ = [
    "ESTIMATES",
    "SCHEDULES",
    "AnnealedChains",
    "Annealing",
    "Budget",
    "EvidenceEstimate",
    "annealed_chains",
    "annealed_importance_sampling",
    "compare_estimates",
    "estimate_from_weights",
    "geometric",
    "importance_sampling",
    "importance_weighted_bound",
    "linear",
    "prior_sampling",
    "reverse_annealing",
    "sigmoid",
]
