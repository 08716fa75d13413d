"""The families of dependent latents that `fit` and `regress` share."""

from typing import Any

from vae_jax.cli.misuse import Misuse

RANK = 1


def check_rank(rank: int, family: str) -> None:
    """Refuses a rank for a family without one.

    Raises:
        Misuse: the family is not low_rank.
    """
    if rank != RANK and family != "low_rank":
        raise Misuse(f"--rank applies to --family low_rank, got --rank {rank} with --family {family}: leave it out")


def joint_family(name: str, support: Any, start: Any, rank: int) -> Any:
    """A full-rank normal, a low-rank normal or a flow over the support."""
    from vae_jax.inference.fit import CouplingFlow, FullRankNormal, LowRankNormal

    if name == "flow":
        return CouplingFlow(support)
    if name == "full_rank":
        return FullRankNormal(support, start=start)
    return LowRankNormal(support, start=start, rank=rank)
