"""The families of dependent latents that `fit` and `regress` share."""

from typing import Any


def joint_family(name: str, support: Any, start: Any, rank: int) -> Any:
    """A full-rank normal, a low-rank normal or a flow over the support."""
    from vae_jax.inference.fit import CouplingFlow, FullRankNormal, LowRankNormal

    if name == "flow":
        return CouplingFlow(support)
    if name == "full_rank":
        return FullRankNormal(support, start=start)
    return LowRankNormal(support, start=start, rank=rank)
