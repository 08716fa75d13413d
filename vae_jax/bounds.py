"""Lower bounds on the log marginal likelihood."""

from collections.abc import Callable

from vae_jax import distributions
from vae_jax.estimators import pathwise
from vae_jax.typing import Distributions, Estimator, Latents, LogDensity, PRNGKey, Scalar


def elbo(
    log_joint: LogDensity,
    q: Distributions,
    key: PRNGKey,
    num_samples: int,
    *,
    estimator: Estimator = pathwise,
    closed_form: Callable[[Distributions], Scalar] | None = None,
) -> Scalar:
    """The evidence lower bound E_q[log p(x, z) - log q(z)] (nats).

    The value is the bound's estimate under every estimator; only the gradient differs.

    Args:
        log_joint: one sample to log p(x, z), normalised in x and z. It may close over model parameters, whose gradient
            is right under every estimator.
        q: the variational distribution, or a pytree of independent ones.
        key: consumed.
        num_samples: how many samples of q are averaged.
        estimator: how the gradient is obtained.
        closed_form: a function of q that replaces the sampled -log q(z): `distributions.entropy` beside a log joint,
            or minus a Kullback-Leibler divergence to the prior beside a log likelihood.

    Raises:
        TypeError, ValueError: as the estimator.

    Reference: Jordan, Ghahramani, Jaakkola & Saul (1999), eq. 39; Kingma & Welling (2014), eqs. 3 and 7.
    """

    def log_weight(sample: Latents, q: Distributions) -> Scalar:
        return log_joint(sample) - distributions.log_prob(q, sample)

    if closed_form is None:
        return estimator(log_weight, q, key, num_samples)
    # Outside the estimator: one that stops gradients to q would stop this term's too.
    return estimator(lambda sample, _: log_joint(sample), q, key, num_samples) + closed_form(q)
