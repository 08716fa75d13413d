"""The command `vae-jax cavi`."""
