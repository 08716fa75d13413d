"""Variational inference beyond one gradient: from a log density to its posterior."""

from vae_jax.inference.laplace import FactorialApproximation, LaplaceApproximation, approximate_factorial, laplace

__all__ = ["FactorialApproximation", "LaplaceApproximation", "approximate_factorial", "laplace"]
