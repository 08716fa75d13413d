"""Laplace's approximation: the Gaussian that a density has at its mode, and the integral that it gives."""

from vae_jax.inference.laplace.factorial import FactorialApproximation, approximate_factorial
from vae_jax.inference.laplace.laplace import LaplaceApproximation, laplace

__all__ = ["FactorialApproximation", "LaplaceApproximation", "approximate_factorial", "laplace"]
