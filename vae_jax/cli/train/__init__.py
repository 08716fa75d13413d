"""The command `vae-jax train`."""
