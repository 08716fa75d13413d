"""The exact posterior of the Poisson-Gamma model, by quadrature over one latent: the other's is a Gamma given it."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from vae_jax.problems.poisson_gamma.poisson_gamma import GammaPrior, PoissonGamma

Points = Float[np.ndarray, " G"]

NEGLIGIBLE = 60.0
"""Nats below the mode. There the density is left out."""

POINTS = 4001


@dataclass(frozen=True)
class PoissonGammaPosterior:
    """Moments of p(u, v | x) and the evidence."""

    mean_u: float
    std_u: float
    mean_v: float
    std_v: float
    correlation: float
    log_evidence: float
    """log p(x) (nats)."""


def exact_posterior(problem: PoissonGamma) -> PoissonGammaPosterior:
    """The posterior's moments and the evidence, to nearly the rounding of float64.

    Given v, u is Gamma(power_u + 1, rate_u + N v). The rest is one integral over log v, whose trapezoidal sum converges
    faster than any power of the step.
    """
    t, density, log_evidence = _marginal(problem, problem.prior_u, problem.prior_v, problem.power_u, problem.power_v)
    v = np.exp(t)
    concentration, rate = problem.power_u + 1, problem.prior_u.rate + len(problem.counts) * v
    mean_given_v = concentration / rate
    mean_u, mean_v = np.sum(density * mean_given_v), np.sum(density * v)
    variance_u = np.sum(density * (concentration / rate**2 + (mean_given_v - mean_u) ** 2))
    variance_v = np.sum(density * (v - mean_v) ** 2)
    covariance = np.sum(density * (mean_given_v - mean_u) * (v - mean_v))
    return PoissonGammaPosterior(
        mean_u=float(mean_u),
        std_u=math.sqrt(variance_u),
        mean_v=float(mean_v),
        std_v=math.sqrt(variance_v),
        correlation=float(covariance / math.sqrt(variance_u * variance_v)),
        log_evidence=log_evidence,
    )


def exact_marginals(problem: PoissonGamma) -> dict[str, tuple[Points, Points]]:
    """Points and the posterior's density there, for u and for v."""
    of_u, of_v = (problem.prior_u, problem.power_u), (problem.prior_v, problem.power_v)
    marginals = {}
    for name, (prior, power), (other_prior, other_power) in (("u", of_u, of_v), ("v", of_v, of_u)):
        t, share, _ = _marginal(problem, other_prior, prior, other_power, power)
        marginals[name] = (np.exp(t), share / (t[1] - t[0]) / np.exp(t))
    return marginals


def _marginal(
    problem: PoissonGamma, other_prior: GammaPrior, prior: GammaPrior, other_power: float, power: float
) -> tuple[Points, Points, float]:
    """Points of a latent's logarithm, the posterior's share of each, and the evidence, the other integrated out."""

    def log_density(t: Points) -> Points:
        latent = np.exp(t)
        log_rate = np.log(other_prior.rate + len(problem.counts) * latent)
        return (power + 1) * t - prior.rate * latent - (other_power + 1) * log_rate + gammaln(other_power + 1)

    low, high = -700.0, 700.0 if prior.rate < 1 else 700.0 - math.log(prior.rate)
    t = np.linspace(low, high, POINTS)
    # Each round resolves the peak better, until the points span it and no more.
    logs = log_density(t)
    for _ in range(60):
        inside = np.flatnonzero(logs > logs.max() - NEGLIGIBLE)
        low, high = t[max(inside[0] - 1, 0)], t[min(inside[-1] + 1, POINTS - 1)]
        if len(inside) > POINTS // 2:
            break
        t = np.linspace(low, high, POINTS)
        logs = log_density(t)
    weights = np.exp(logs - logs.max())
    log_evidence = problem.log_constant + float(logs.max()) + math.log(weights.sum() * (t[1] - t[0]))
    return t, weights / weights.sum(), log_evidence
