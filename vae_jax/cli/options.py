"""Options that several commands share, and the ranges that they have in common."""

from vae_jax.cli.misuse import Misuse

MAX_SEED = 2**32


def check_seed(seed: int) -> None:
    """Refuses a seed that is none of JAX's.

    Raises:
        Misuse: it is out of range.
    """
    if not 0 <= seed < MAX_SEED:
        raise Misuse(f"--seed must be from 0 to {MAX_SEED - 1}, got {seed}: change it")
