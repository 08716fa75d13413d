"""Exact moments of estimators whose terms are functions of one standard normal noise variable.

One sample adds a term to the value and one to each gradient. They are given by name, as functions of the noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

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


def _over_pair(term: Term) -> Term:
    return lambda noise: (term(noise) + term(-noise)) / 2


class TermsOfNormal(ABC):
    """The terms of one sample under q = Normal(loc, scale), as functions of the noise (z - loc) / scale."""

    value_name: ClassVar[str]
    scale: float
    """The scale of q."""

    @abstractmethod
    def value(self, noise: Any) -> Any:
        """The objective."""

    @abstractmethod
    def path_slope(self, noise: Any) -> Any:
        """The derivative by z that a gradient along the path is made of."""

    def score(self, name: str) -> Term:
        """d log q / d parameter."""
        return lambda noise: (noise if name == "loc" else noise**2 - 1) / self.scale

    def path_derivative(self, name: str) -> Term:
        """The slope times dz / d parameter."""
        return lambda noise: self.path_slope(noise) * (noise if name == "scale" else 1)

    def path_terms(self) -> Terms:
        """The value and the derivatives along the path."""
        return self.terms(self.path_derivative)

    def score_terms(self) -> Terms:
        """The value and the value times the score."""
        return self.terms(lambda name: lambda noise: self.value(noise) * self.score(name)(noise))

    def terms(self, gradient: Callable[[str], Term]) -> Terms:
        """The value and the gradient's terms for loc and scale."""
        return {self.value_name: self.value} | {name: gradient(name) for name in ("loc", "scale")}


def leave_one_out(terms: TermsOfNormal) -> NamedMoments:
    """Moments of the score function with the leave-one-out baseline."""
    value = at_noise(terms.value)
    gradients = {
        name: leave_one_out_moments(value, at_noise(terms.score(name)), lambda x: weighted_moments(x, NOISE_WEIGHTS))
        for name in ("loc", "scale")
    }
    return {terms.value_name: averaged(noise_moments(terms.value))} | gradients


SCORE_FUNCTION_MOMENTS: Mapping[str, Callable[[TermsOfNormal], NamedMoments]] = {
    "score_function": lambda terms: sample_averages(terms.score_terms()),
    "score_function+leave_one_out": leave_one_out,
    "score_function+antithetic_pairs": lambda terms: pair_averages(terms.score_terms()),
}
"""Terms of the estimators that need the value and the score alone, by name."""
