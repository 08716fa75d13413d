"""The same evidence by every estimator."""

from collections.abc import Mapping

import jax

from vae_jax.evidence_budget import Budget
from vae_jax.inference.evidence.annealing import Annealing, annealed_importance_sampling
from vae_jax.inference.evidence.evidence_estimate import EvidenceEstimate
from vae_jax.inference.evidence.importance_sampling import (
    importance_sampling,
    importance_weighted_bound,
    prior_sampling,
)
from vae_jax.inference.evidence.temperature_schedules import SCHEDULES
from vae_jax.typing import Distributions, LogDensity, PRNGKey

ESTIMATES: Mapping[str, str] = {
    "prior_sampling": "prior sampling",
    "importance_sampling": "importance sampling",
    "annealed_importance_sampling": "annealing",
    "importance_weighted_bound": "lower bound",
}
"""Functions, and what tables and figures call them."""


def compare_estimates(
    log_likelihood: LogDensity,
    log_joint: LogDensity,
    prior: Distributions,
    q: Distributions,
    key: PRNGKey,
    *,
    budget: Budget,
) -> dict[str, EvidenceEstimate]:
    """Estimates one log evidence by every estimator in `ESTIMATES`, from independent draws.

    Args:
        log_likelihood: maps one sample to log p(x | z) (nats, scalar).
        log_joint: maps one sample to log p(x, z) (nats, scalar).
        prior: prior distribution of the latents.
        q: proposal close to the posterior.
        key: consumed.
        budget: numbers of samples, chains and temperatures.

    Returns:
        Estimates (nats) by the names of `ESTIMATES`.

    Raises:
        TypeError: as for the estimators.
        ValueError: as for `Budget.check` and the estimators.

    Example:
        One observation of 1 from Normal(z, 1) under the prior Normal(0, 1) has the evidence Normal(1; 0, sqrt(2)):

        >>> import jax
        >>> from numpyro.distributions import Normal
        >>> from vae_jax.inference.evidence import Budget, compare_estimates
        >>> prior, exact = Normal(0, 1), Normal(0, 2**0.5).log_prob(1.0)
        >>> log_likelihood = lambda z: Normal(z, 1).log_prob(1.0)
        >>> log_joint = lambda z: log_likelihood(z) + prior.log_prob(z)
        >>> budget = Budget(num_samples=1000, num_bound_samples=50, num_chains=50, num_temperatures=10)
        >>> q, key = Normal(0.5, 0.8), jax.random.key(0)
        >>> found = compare_estimates(log_likelihood, log_joint, prior, q, key, budget=budget)
        >>> {name: bool(abs(each.log_evidence - exact) < 0.1) for name, each in found.items()}
        {'prior_sampling': True, 'importance_sampling': True, 'annealed_importance_sampling': True,
         'importance_weighted_bound': True}
    """
    budget.check()
    keys = jax.random.split(key, len(ESTIMATES))
    return {
        "prior_sampling": prior_sampling(log_likelihood, prior, keys[0], budget.num_samples),
        "importance_sampling": importance_sampling(log_joint, q, keys[1], budget.num_samples),
        "annealed_importance_sampling": annealed_importance_sampling(
            log_joint,
            prior if budget.start == "prior" else q,
            keys[2],
            budget.num_chains,
            annealing=Annealing(budget.num_temperatures, SCHEDULES[budget.schedule], budget.num_leapfrog_steps),
        ),
        "importance_weighted_bound": importance_weighted_bound(
            log_joint,
            q,
            keys[3],
            budget.num_bound_samples,
            num_replicates=budget.num_samples // budget.num_bound_samples,
        ),
    }
