"""Experiments, presets and settings: plain data that imports no JAX."""
