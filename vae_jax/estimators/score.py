"""The score-function estimator, which differentiates the density instead of the objective."""

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax import distributions
from vae_jax.estimators.average import values_at
from vae_jax.estimators.baselines import no_baseline
from vae_jax.typing import Baseline, Distributions, Objective, PRNGKey, Scalar


def score_function(
    objective: Objective,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    baseline: Baseline = no_baseline,
) -> Scalar:
    """The score-function estimator (REINFORCE, likelihood ratio).

    Approximates: d/dtheta E_q[f(z)] by the mean of (f(z) - baseline) d log q(z; theta)/dtheta, plus the mean of df for
        whatever else the objective closes over.
    Needs: a density differentiable in its parameters. The objective need not be differentiable.
    Biased: no, as long as no sample's baseline depends on that sample. First derivatives only.

    Args:
        objective: one sample and `q` to a scalar; it sees both with no gradient attached.
        q: a distribution or a pytree of independent ones, each with an empty batch shape.
        key: consumed.
        num_samples: S, how many samples are averaged.
        baseline: the values [S] to what is subtracted from each: `no_baseline`, `leave_one_out`, or a function of
            yours, such as one that ignores its argument and returns a prediction from the input.

    Returns:
        The mean of the objective, whose gradient is the estimate.

    Raises:
        TypeError: a leaf of `q` is not a distribution.
        ValueError: no samples, a batch shape, an objective that is not scalar, or one that the baseline refuses.

    Reference: Williams (1992), section 4; Mohamed, Rosca, Figurnov & Mnih (2020), section 4.
    """
    samples = distributions.sample(q, key, num_samples)
    values = values_at(objective, samples, jax.tree.map(lax.stop_gradient, q))
    log_density = jax.vmap(distributions.log_prob, in_axes=(None, 0))(q, samples)
    baselines = jnp.asarray(baseline(lax.stop_gradient(values)))
    if baselines.shape not in ((), values.shape):
        raise ValueError(f"baseline must return a scalar or shape {values.shape}, got shape {baselines.shape}")
    advantage = lax.stop_gradient(values - baselines)
    # Zero in value, the score in its derivative.
    score = log_density - lax.stop_gradient(log_density)
    return (values + advantage * score).mean()
