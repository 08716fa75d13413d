"""Exact moments of estimators whose terms are functions of one standard normal noise variable.

One sample adds a term to the value and one to each gradient. They are given by name, as functions of the noise.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from vae_jax.problems.central_moments import weighted_moments
from vae_jax.problems.exact_moments import (
    MomentsOfSamples,
    averaged,
    leave_one_out_moments,
    mean_alone,
    over_pairs,
)
from vae_jax.problems.quadrature import NOISE_WEIGHTS, at_noise, noise_moments

Term: TypeAlias = Callable[[Any], Any]
"""Noise to what one sample adds to an estimate."""

Terms: TypeAlias = Mapping[str, Term]
"""Terms by the names of the value and of the parameters."""

NamedMoments: TypeAlias = dict[str, MomentsOfSamples]


def means_alone(terms: Terms) -> NamedMoments:
    """Moments of an unbiased estimator whose variance is not known."""
    return {name: mean_alone(noise_moments(term).mean) for name, term in terms.items()}


def sample_averages(terms: Terms) -> NamedMoments:
    """Moments of averages of one term a sample."""
    return {name: averaged(noise_moments(term)) for name, term in terms.items()}


def pair_averages(terms: Terms) -> NamedMoments:
    """Moments of averages over pairs of opposite noise."""
    return {name: over_pairs(averaged(noise_moments(_over_pair(term)))) for name, term in terms.items()}


def leave_one_out(value: Terms, scores: Terms) -> NamedMoments:
    """Moments of the score function with the leave-one-out baseline.

    Args:
        value: the objective alone, by its name.
        scores: the derivatives of log q, by the names of the parameters.
    """
    ((name, objective),) = value.items()
    f = at_noise(objective)
    gradients = {
        parameter: leave_one_out_moments(f, at_noise(score), lambda x: weighted_moments(x, NOISE_WEIGHTS))
        for parameter, score in scores.items()
    }
    return {name: averaged(noise_moments(objective))} | gradients


def _over_pair(term: Term) -> Term:
    return lambda noise: (term(noise) + term(-noise)) / 2
