"""Laplace's approximation: the Gaussian that a density has at its mode, and the integral that it gives."""

from vae_jax.inference.laplace.approximation import LaplaceApproximation, laplace
from vae_jax.inference.laplace.factorial import FactorialApproximation, approximate_factorial

__all__ = ["FactorialApproximation", "LaplaceApproximation", "approximate_factorial", "laplace"]
