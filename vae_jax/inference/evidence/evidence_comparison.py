"""The same evidence by every estimator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax

from vae_jax.inference.evidence.annealing import Annealing, annealed_importance_sampling
from vae_jax.inference.evidence.evidence_estimate import EvidenceEstimate
from vae_jax.inference.evidence.importance_sampling import (
    importance_sampling,
    importance_weighted_bound,
    prior_sampling,
)
from vae_jax.inference.evidence.temperature_schedules import SCHEDULES
from vae_jax.typing import Distributions, LogDensity, PRNGKey


@dataclass(frozen=True)
class Budget:
    """Samples, chains and temperatures that every estimator may use.

    Args:
        num_samples: of the prior, of the proposal, and of all replicates of the bound together.
        num_bound_samples: K of the importance-weighted bound.
        num_chains, num_temperatures, num_leapfrog_steps: of annealing.
        schedule: of its temperatures: linear, sigmoid or geometric.
        start: where it starts, at the prior or at the proposal.

    Raises:
        ValueError: a number is too small, or a name unknown.
    """

    num_samples: int = 10_000
    num_bound_samples: int = 50
    num_chains: int = 256
    num_temperatures: int = 100
    num_leapfrog_steps: int = 5
    schedule: str = "sigmoid"
    start: Literal["prior", "fit"] = "prior"

    def __post_init__(self) -> None:
        for name, number in {"num_bound_samples": 1, "num_chains": 2}.items():
            if getattr(self, name) < number:
                raise ValueError(f"{name} must be at least {number}, got {getattr(self, name)}: raise it")
        if self.num_samples < 2 * self.num_bound_samples:
            raise ValueError(
                f"num_samples must be at least twice num_bound_samples, got {self.num_samples} and "
                f"{self.num_bound_samples}: the bound's error needs two replicates"
            )
        for name, value, known in (("schedule", self.schedule, SCHEDULES), ("start", self.start, ("prior", "fit"))):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value}: choose another")
        # What they may be is checked where they are made.
        _ = self.annealing

    @property
    def annealing(self) -> Annealing:
        """Its temperatures and transitions."""
        return Annealing(self.num_temperatures, SCHEDULES[self.schedule], self.num_leapfrog_steps)


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
    """Every estimate of one evidence, by the names of `ESTIMATES`, from draws that are independent of each other.

    Args:
        log_likelihood: one sample to log p(x | z) (nats).
        log_joint: one sample to log p(x, z) (nats).
        prior: of the latents.
        q: a proposal close to the posterior.
        key: consumed.
        budget: of samples, chains and temperatures.

    Raises:
        TypeError, ValueError: as for the estimators.
    """
    keys = jax.random.split(key, len(ESTIMATES))
    return {
        "prior_sampling": prior_sampling(log_likelihood, prior, keys[0], budget.num_samples),
        "importance_sampling": importance_sampling(log_joint, q, keys[1], budget.num_samples),
        "annealed_importance_sampling": annealed_importance_sampling(
            log_joint,
            prior if budget.start == "prior" else q,
            keys[2],
            budget.num_chains,
            annealing=budget.annealing,
        ),
        "importance_weighted_bound": importance_weighted_bound(
            log_joint,
            q,
            keys[3],
            budget.num_bound_samples,
            num_replicates=budget.num_samples // budget.num_bound_samples,
        ),
    }
