"""Distributions sampled by two routes each, and gradients through relaxations."""
