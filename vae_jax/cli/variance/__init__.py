"""The command `vae-jax variance`."""
