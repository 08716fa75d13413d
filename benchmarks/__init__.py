"""Measurements of vae_jax, a folder for each question. Run `python -m benchmarks.FOLDER.SCRIPT` from the checkout."""
