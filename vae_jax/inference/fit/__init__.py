"""Stochastic variational inference: families of distributions fitted to any log joint."""

from vae_jax.inference.fit.coupling_flow import CouplingFlow
from vae_jax.inference.fit.elbo_plateau import ElboPlateau
from vae_jax.inference.fit.families import Factor, FullRankNormal, LowRankNormal, MeanField, MeanFieldNormal
from vae_jax.inference.fit.fit import Fit, fit
from vae_jax.inference.fit.minibatches import Minibatched
from vae_jax.inference.fit.numpyro_models import numpyro_log_joint

__all__ = [
    "CouplingFlow",
    "ElboPlateau",
    "Factor",
    "Fit",
    "FullRankNormal",
    "LowRankNormal",
    "MeanField",
    "MeanFieldNormal",
    "Minibatched",
    "fit",
    "numpyro_log_joint",
]
