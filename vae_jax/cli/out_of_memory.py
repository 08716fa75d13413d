"""The message of a command that runs out of memory."""

import re

from vae_jax.cli.command_flags import flags_of

SIZES = (
    "--batch-size", "--num-samples", "--num-seeds", "--num-replicates", "--num-images", "--num-importance-samples",
    "--num-chains", "--num-bound-samples", "--num-latents", "--num-restarts",
)  # fmt: skip
"""Flags whose values the memory grows with."""

UNITS = {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def is_out_of_memory(error: Exception) -> bool:
    """Whether JAX, or Python, failed to get the memory that it asked for."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def out_of_memory(error: Exception, command: type) -> str:
    """The message: the amount that was asked for, where the error says it, and the flags of the command to lower."""
    amount = _amount(str(error))
    asked = "more was asked for than there is" if amount is None else f"{amount} were asked for at once"
    flags = flags_of(command)
    *others, last = [flag for flag in SIZES if flag in flags] or [""]
    advice = f"lower {', '.join(others)}{' or ' if others else ''}{last}" if last else "free some"
    return f"the memory does not suffice, {asked}: {advice}, or take a machine with more"


def _amount(message: str) -> str | None:
    """The memory that an error names first, in GB or MB."""
    found = re.search(rf"([\d.]*\d) ?({'|'.join(UNITS)})\b", message)
    if found is None:
        return None
    num_bytes = float(found[1]) * UNITS[found[2]]
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
