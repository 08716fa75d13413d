"""The commands `vae-jax evidence` and `vae-jax image-evidence`."""
