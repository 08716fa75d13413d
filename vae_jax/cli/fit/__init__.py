"""The command `vae-jax fit`."""
