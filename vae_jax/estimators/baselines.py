"""What the score-function estimator subtracts from the objective: less variance, the same mean.

A baseline takes the objective's values at the S samples, [S], and returns what to subtract from each, [S] or a scalar.
It must not let a value into its own baseline: that biases the gradient.
"""

from jaxtyping import Array, Float


def no_baseline(values: Float[Array, " S"]) -> float:
    """Nothing is subtracted."""
    return 0.0


def leave_one_out(values: Float[Array, " S"]) -> Float[Array, " S"]:
    """Each sample's baseline is the mean of the other samples' values.

    Raises:
        ValueError: there is only one sample.

    Reference: Kool, van Hoof & Welling (2019), eq. 8; Mnih & Rezende (2016), section 2.4.
    """
    num_samples = values.shape[0]
    if num_samples < 2:
        raise ValueError("leave_one_out needs at least 2 samples, got 1: raise num_samples, or use no_baseline")
    return (values.sum() - values) / (num_samples - 1)
