"""The variance and the signal-to-noise ratio of gradient estimators, measured and exact."""
