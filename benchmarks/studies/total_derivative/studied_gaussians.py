"""The target, and the q's at which gradients are measured."""

from typing import Any

import numpy as np

from vae_jax.problems import LinearGaussian

PROBLEM = LinearGaussian(x=0.0, prior_loc=0.0, prior_scale=2**0.5, noise_scale=2**0.5)
"""Its posterior is the standard Gaussian."""
PARAMETERS = ("loc", "scale")
START = {"loc": -1.5, "scale": 0.4}
FIXED_LOC = -0.5
SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.45, 1.6)
COEFFICIENTS = (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
COEFFICIENT_SCALES = (0.5, 0.5**0.5, 1.0, 1.25)
HALF = 0.5**0.5
"""The scale at which dropping the score and keeping it are equally good."""


def studied_places() -> list[dict[str, Any]]:
    """The study and q's parameters of every measurement."""
    places = [{"study": "line", "t": float(t)} | at_step(float(t)) for t in np.linspace(0, 1, 11)]
    places += [{"study": "scale"} | at_scale(scale) for scale in SCALES]
    places += [{"study": "coefficient"} | at_scale(scale) for scale in COEFFICIENT_SCALES]
    return places


def at_step(t: float) -> dict[str, float]:
    """q's parameters on the line from the start to the target."""
    return {name: (1 - t) * START[name] + t * goal for name, goal in zip(PARAMETERS, PROBLEM.posterior, strict=True)}


def at_scale(scale: float) -> dict[str, float]:
    """q's parameters at the fixed loc."""
    return {"loc": FIXED_LOC, "scale": scale}
