"""The images of a split as training and as scores see them."""

import numpy as np

from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.data.binarization import prepared
from vae_jax.vae.data.image_data import Split

STREAMS = {"train": 0, "validation": 1, "test": 2}
"""Numbers for each split's fixed draws."""


def training_images(experiment: Experiment, split: Split) -> np.ndarray:
    """The training images as they are given to `make_train`, which binarizes them afresh if the rule is stochastic."""
    data = experiment.data
    return prepared(split.images, data.binarization, data.binarization_seed, stream=STREAMS["train"])


def visible_images(experiment: Experiment, split: Split, name: str) -> np.ndarray:
    """The images of a split as the model sees them in a score, times 255 [N, X].

    Where training binarizes afresh every batch, a score uses one fixed draw: it must not move by itself.
    """
    rule = experiment.data.binarization
    fixed = "fixed" if rule == "stochastic" else rule
    return prepared(split.images, fixed, experiment.data.binarization_seed, stream=STREAMS[name])
