"""The command `vae-jax regress`."""
