"""Costs of one Gaussian latent, and the exact moments of their gradient estimators."""
