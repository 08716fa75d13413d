"""Targets that know their exact answers."""

from vae_jax.problems.exact import Exact, ExactMoments
from vae_jax.problems.poisson_gamma import Gamma, PoissonGamma

__all__ = ["Exact", "ExactMoments", "Gamma", "PoissonGamma"]
