"""Exact moments of the estimators of discrete costs, as sums over all outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, log_softmax, roots_legendre

from vae_jax.problems.central_moments import CentralMoments, central_moments
from vae_jax.problems.exact_moments import (
    UNKNOWN,
    Exact,
    ExactMoments,
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    constant,
    leave_one_out_moments,
    mean_alone,
    moments_by_parameter,
    over_pairs,
)
from vae_jax.problems.parameter_checks import element_names

_ROUNDING = 1e-14
"""The sums have few terms."""

_INDEPENDENT_VALUES = (
    "score_function",
    "score_function+leave_one_out",
    "straight_through",
    "rebar",
    "relax",
)
"""Estimators whose value is the mean of the objective at independent samples of q."""

Outcomes: TypeAlias = Int[np.ndarray, "N D"]
Cost: TypeAlias = Callable[[Outcomes], Float[np.ndarray, " N"]]

WeightedTerms: TypeAlias = dict[str, tuple[np.ndarray, np.ndarray]]
"""Probabilities and the terms that they weigh: those that a sample, or a pair, adds to the value and each gradient."""


@dataclass(frozen=True)
class BernoulliCostMoments:
    """A cost of independent Bernoulli variables, over all their outcomes."""

    logits: tuple[float, ...]
    cost: Cost
    names: tuple[str, ...]

    def exact(self, estimator: str) -> MomentsByParameter:
        terms = self.independent_terms()
        if estimator == "arm":
            return _paired(_averaged(self.pair_terms(self.arm_coefficients())))
        if estimator in ("disarm", "categorical_disarm"):
            return _paired(_averaged(self.pair_terms(self.disarm_coefficients())))
        if estimator == "rao_blackwellized":
            if len(self.logits) == 1:
                return _without_variance(terms)
            return moments_by_parameter(_averaged(self.first_enumerated_terms()))
        return _sampled_exact(terms, self.scores(), estimator)

    @property
    def outcomes(self) -> Outcomes:
        """All of them, the first variable's changing slowest."""
        return _combinations(2, len(self.logits))

    @property
    def probs(self) -> Float[np.ndarray, " N"]:
        signs = 2 * self.outcomes - 1
        return expit(signs * np.asarray(self.logits)).prod(axis=1)

    def scores(self) -> dict[str, np.ndarray]:
        return dict(zip(self.names, (self.outcomes - expit(np.asarray(self.logits))).T, strict=True))

    def independent_terms(self) -> WeightedTerms:
        values = self.cost(self.outcomes)
        gradients = {name: (self.probs, values * score) for name, score in self.scores().items()}
        return {"cost": (self.probs, values)} | gradients

    def first_enumerated_terms(self) -> WeightedTerms:
        """The score function on all variables but the first, with the first summed over."""
        first = expit(np.asarray([-self.logits[0], self.logits[0]]))
        rest_probs = self.probs.reshape(2, -1).sum(axis=0)
        values = self.cost(self.outcomes).reshape(2, -1)
        conditional = first @ values
        terms = {"cost": (rest_probs, conditional)}
        for name, score in self.scores().items():
            terms[name] = (rest_probs, conditional * score.reshape(2, -1)[0])
        return terms | {self.names[0]: (rest_probs, first[0] * first[1] * (values[1] - values[0]))}

    def pair_terms(self, coefficients: Sequence[tuple[np.ndarray, np.ndarray]]) -> WeightedTerms:
        """Terms of one antithetic pair.

        Args:
            coefficients: for each variable what multiplies f(b) - f(b') in its gradient, [state, node], and the nodes'
                weights, with the states of `_antithetic_pairs`.
        """
        states, probs, bits, antithetic = _antithetic_pairs(np.asarray(self.logits))
        one, other = self.cost(bits), self.cost(antithetic)
        terms = {"cost": (probs, (one + other) / 2)}
        for number, (name, (nodes, weights)) in enumerate(zip(self.names, coefficients, strict=True)):
            gradients = (one - other)[:, None] * nodes[states[:, number]]
            terms[name] = ((probs[:, None] * weights).ravel(), gradients.ravel())
        return terms

    def arm_coefficients(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """u - 1/2, uniform in each state: three Gauss-Legendre nodes give its first five moments."""
        nodes, weights = roots_legendre(3)
        coefficients = []
        for logit in self.logits:
            edge = expit(abs(logit)) - 0.5
            middle, half = (0.5 + edge) / 2, (0.5 - edge) / 2
            above = middle + half * nodes
            coefficients.append((np.stack([above, -above, edge * nodes]), weights / 2))
        return coefficients

    def disarm_coefficients(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """sigmoid(|logit|) / 2 where the pair differs, with the sign of its difference."""
        halves = [expit(abs(logit)) / 2 for logit in self.logits]
        return [(np.asarray([[half], [-half], [0.0]]), np.ones(1)) for half in halves]


def categorical_cost_moments(logits: np.ndarray, values: np.ndarray, estimator: str) -> MomentsByParameter:
    """The exact moments of E[values[k]], k ~ Categorical(logits), under an estimator."""
    probs = np.exp(log_softmax(logits))
    names = element_names("logits", logits)
    scores = dict(zip(names, np.eye(logits.size) - probs[:, None], strict=True))
    terms: WeightedTerms = {"cost": (probs, values)} | {name: (probs, values * score) for name, score in scores.items()}
    if estimator == "rao_blackwellized":
        return _without_variance(terms)
    if estimator == "categorical_disarm":
        return _paired(_averaged(_stick_terms(logits, values, names)))
    return _sampled_exact(terms, scores, estimator)


def _stick_terms(logits: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> WeightedTerms:
    """Terms of one pair under DisARM on the sticks of the categorical."""
    num_sticks = logits.size - 1
    # d stick / d logit: one for its own category, minus the share of each that follows.
    slopes = np.eye(num_sticks, logits.size)
    stick_logits = np.empty(num_sticks)
    for number in range(num_sticks):
        tail = logits[number + 1 :]
        slopes[number, number + 1 :] = -np.exp(log_softmax(tail))
        stick_logits[number] = logits[number] - np.logaddexp.reduce(tail)

    def first_success(bits: Outcomes) -> Int[np.ndarray, " N"]:
        return np.concatenate([bits, np.ones_like(bits[:, :1])], axis=1).argmax(axis=1)

    _, probs, bits, antithetic = _antithetic_pairs(stick_logits)
    one, other = first_success(bits), first_success(antithetic)
    reached = np.arange(num_sticks) <= np.maximum(one, other)[:, None]
    coefficients = (bits - antithetic) * reached * expit(np.abs(stick_logits)) / 2
    gradients = (values[one] - values[other])[:, None] * coefficients @ slopes
    return {"cost": (probs, (values[one] + values[other]) / 2)} | {
        name: (probs, gradient) for name, gradient in zip(names, gradients.T, strict=True)
    }


def _antithetic_pairs(logits: np.ndarray) -> tuple[Outcomes, Float[np.ndarray, " N"], Outcomes, Outcomes]:
    """All pairs of antithetic samples of Bernoulli variables: states, probabilities, and the two samples.

    The states of a variable are (1, 0), (0, 1) and both the likelier outcome.
    """
    likelier = (logits > 0).astype(int)
    differ = expit(-np.abs(logits))
    states, variables = _combinations(3, len(logits)), np.arange(len(logits))
    probs = np.stack([differ, differ, 1 - 2 * differ])[states, variables].prod(axis=1)
    bits, antithetic = (np.where(states == 2, likelier, np.where(states == same, 1, 0)) for same in (0, 1))
    return states, probs, bits, antithetic


def _sampled_exact(terms: WeightedTerms, scores: Mapping[str, np.ndarray], estimator: str) -> MomentsByParameter:
    """Under estimators that draw their samples independently, and under those of unknown variance."""
    if estimator == "enumeration":
        return _without_variance(terms)
    moments = {name: mean_alone(_mean(*term)) for name, term in terms.items()}
    independent = _averaged(terms)
    if estimator in _INDEPENDENT_VALUES:
        moments["cost"] = independent["cost"]
    if estimator == "score_function":
        return moments_by_parameter(independent)
    if estimator == "score_function+leave_one_out":
        probs, values = terms["cost"]
        for name, score in scores.items():
            moments[name] = leave_one_out_moments(values, score, partial(_moments, probs))
    return moments_by_parameter(moments)


def _averaged(terms: WeightedTerms) -> dict[str, MomentsOfSamples]:
    return {name: averaged(_moments(*term)) for name, term in terms.items()}


def _paired(moments: Mapping[str, MomentsOfSamples]) -> MomentsByParameter:
    return moments_by_parameter({name: over_pairs(of_pairs) for name, of_pairs in moments.items()})


def _without_variance(terms: WeightedTerms) -> MomentsByParameter:
    return moments_by_parameter(
        {
            name: constant(ExactMoments(Exact("finite", _mean(*term)), Exact("finite", 0.0), UNKNOWN))
            for name, term in terms.items()
        }
    )


def _mean(probs: np.ndarray, values: np.ndarray) -> float:
    return float(probs @ values)


def _moments(probs: np.ndarray, values: np.ndarray) -> CentralMoments:
    return central_moments(values, partial(_mean, probs), rounding=_ROUNDING)


def _combinations(num_states: int, num_variables: int) -> Outcomes:
    return np.indices((num_states,) * num_variables).reshape(num_variables, -1).T
