"""How a gradient is obtained. Every estimator has the signature of `vae_jax.typing.Estimator`."""

from functools import partial

from vae_jax.estimators.baselines import leave_one_out, no_baseline
from vae_jax.estimators.blocks import in_blocks
from vae_jax.estimators.reparameterization import pathwise, sticking_the_landing
from vae_jax.estimators.score import score_function
from vae_jax.typing import Estimator

ESTIMATORS: dict[str, Estimator] = {
    "pathwise": pathwise,
    "sticking_the_landing": sticking_the_landing,
    "score_function": score_function,
    "score_function+leave_one_out": partial(score_function, baseline=leave_one_out),
}
"""The estimators by the names that commands and tables use: a baseline stands after a plus."""

__all__ = [
    "ESTIMATORS",
    "in_blocks",
    "leave_one_out",
    "no_baseline",
    "pathwise",
    "score_function",
    "sticking_the_landing",
]
