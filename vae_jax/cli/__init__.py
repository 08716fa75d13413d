"""The command `vae-jax`: parse, call, print, save. Nothing here imports JAX before a command runs."""

from vae_jax.cli.main import main as main
