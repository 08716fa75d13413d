"""The distributions, and the cost whose gradient is relaxed."""

import numpy as np

RATE = 1.5
PROBS = (0.1, 0.2, 0.5, 0.2)
LOGITS = tuple(np.log(PROBS).tolist())
HISTOGRAM_TEMPERATURES = (0.1, 0.5, 1.0, 2.0)

VALUES = (0.2, 1.0, -0.5, 0.6)
TARGET = 0.45
NUM_SAMPLES = 2
TEMPERATURES = (0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, 5.0)

SHOWN = 2
"""The category whose coordinate and whose logit's gradient are shown: the likeliest."""
