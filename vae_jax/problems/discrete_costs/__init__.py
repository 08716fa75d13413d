"""Costs of discrete latents, and the exact moments of their gradient estimators."""
