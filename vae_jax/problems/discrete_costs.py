"""Costs of discrete latents, whose expectations and estimators' moments are finite sums."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float, Int
from scipy.special import expit, log_softmax, roots_legendre

from vae_jax.estimators.discrete import OneHotCategorical
from vae_jax.problems.exact import (
    UNKNOWN,
    Exact,
    ExactMoments,
    MomentsByParameter,
    MomentsOfSamples,
    averaged,
    constant,
    leave_one_out,
)
from vae_jax.typing import Distributions, Estimator, Latents, PRNGKey, Scalar

MAX_VARIABLES = 10
"""Bernoulli variables, or categories: pairs of antithetic samples have 3^D outcomes."""

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

Terms: TypeAlias = dict[str, tuple[np.ndarray, np.ndarray]]
"""What one sample, or one pair of them, adds to the value and to each gradient: probabilities and what they weigh."""


@dataclass(frozen=True)
class BernoulliCost:
    """E[(b - target)^2] for b ~ Bernoulli: the gradient in the logit is p (1 - p) (1 - 2 target).

    Its parameter is "logit".

    Args:
        target: what b is compared with. At 1/2 the gradient is zero.

    Raises:
        ValueError: a target that is not finite.

    Reference: Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein (2017), section 5.1.
    """

    target: float = 0.45

    name: ClassVar[str] = "bernoulli"
    value_name: ClassVar[str] = "cost"

    def __post_init__(self) -> None:
        _check_finite("target", (self.target,))

    @property
    def default_params(self) -> dict[str, Any]:
        """Both outcomes are as likely."""
        return {"logit": 0.0}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError unless `params` holds a finite logit and nothing else."""
        _check_names(params, "logit")
        _check_finite("logit", (params["logit"],))

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """Bernoulli with the logit."""
        return dist.Bernoulli(logits=jnp.asarray(params["logit"]))

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """(b - target)^2."""
        return (latents - self.target) ** 2

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """An estimate of the expected cost, whose gradient is the estimator's."""
        return estimator(self.objective, self.q(params), key, num_samples)

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient.

        Under a biased estimator the mean is that of an unbiased one, and the rest is unknown.

        Raises:
            ValueError: invalid parameters; later, fewer samples than the estimator needs, or an odd number.
        """
        self.check_params(params)
        truth = _BernoulliTruth((float(params["logit"]),), lambda b: (b[:, 0] - self.target) ** 2, ("logit",))
        return truth.exact(estimator)


@dataclass(frozen=True)
class BernoulliVectorCost:
    """E[(weights . b - target)^2] for a vector b of independent Bernoulli variables, which the square couples.

    Its parameter is "logits", a tuple of as many numbers as there are weights.

    Args:
        weights: one for each variable, 10 at most.
        target: what the weighted sum is compared with.

    Raises:
        ValueError: no weights or too many, or a number that is not finite.
    """

    weights: Sequence[float] = (1.0, -0.7, 0.5)
    target: float = 0.45

    name: ClassVar[str] = "bernoulli-vector"
    value_name: ClassVar[str] = "cost"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        _check_number("weights", self.weights, least=1)
        _check_finite("weights", self.weights)
        _check_finite("target", (self.target,))

    @property
    def default_params(self) -> dict[str, Any]:
        """Logits from -0.4 upwards in steps of 0.5."""
        return {"logits": tuple(0.5 * number - 0.4 for number in range(len(self.weights)))}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError unless `params` holds a finite logit for each variable and nothing else."""
        _check_logits(params, len(self.weights))

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """Independent Bernoulli variables."""
        return dist.Bernoulli(logits=jnp.asarray(params["logits"])).to_event(1)

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """(weights . b - target)^2."""
        return ((jnp.asarray(self.weights) * latents).sum() - self.target) ** 2

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """An estimate of the expected cost, whose gradient is the estimator's."""
        return estimator(self.objective, self.q(params), key, num_samples)

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient, as those of `BernoulliCost`."""
        self.check_params(params)
        logits = tuple(float(logit) for logit in params["logits"])
        truth = _BernoulliTruth(
            logits, lambda b: (b @ np.asarray(self.weights) - self.target) ** 2, _element_names(len(logits))
        )
        return truth.exact(estimator)


@dataclass(frozen=True)
class CategoricalCost:
    """E[values[k]] for a one-hot categorical k: the gradient in logit k is p_k (values[k] - E values).

    Its parameter is "logits", a tuple of as many numbers as there are values.

    Args:
        values: the cost of each category, from 2 to 10 of them.

    Raises:
        ValueError: too few values or too many, or one that is not finite.
    """

    values: Sequence[float] = (0.2, 1.0, -0.5, 0.6)

    name: ClassVar[str] = "categorical"
    value_name: ClassVar[str] = "cost"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(value) for value in self.values))
        _check_number("values", self.values, least=2)
        _check_finite("values", self.values)

    @property
    def default_params(self) -> dict[str, Any]:
        """Logits from 0 upwards in steps of 0.3."""
        return {"logits": tuple(0.3 * number for number in range(len(self.values)))}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError unless `params` holds a finite logit for each category and nothing else."""
        _check_logits(params, len(self.values))

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """One-hot categorical with the logits."""
        return OneHotCategorical(jnp.asarray(params["logits"]))

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """The value of the category; between the categories, the weighted sum of the values."""
        return (jnp.asarray(self.values) * latents).sum()

    def estimate(self, params: Mapping[str, Any], key: PRNGKey, num_samples: int, *, estimator: Estimator) -> Scalar:
        """An estimate of the expected cost, whose gradient is the estimator's."""
        return estimator(self.objective, self.q(params), key, num_samples)

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient, as those of `BernoulliCost`."""
        self.check_params(params)
        logits = np.asarray([float(logit) for logit in params["logits"]])
        return _categorical_exact(logits, np.asarray(self.values), estimator)


@dataclass(frozen=True)
class _BernoulliTruth:
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
            return _by_name(_averaged(self.first_enumerated_terms()))
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

    def independent_terms(self) -> Terms:
        values = self.cost(self.outcomes)
        gradients = {name: (self.probs, values * score) for name, score in self.scores().items()}
        return {"cost": (self.probs, values)} | gradients

    def first_enumerated_terms(self) -> Terms:
        """The score function on all variables but the first, with the first summed over."""
        first = expit(np.asarray([-self.logits[0], self.logits[0]]))
        rest_probs = self.probs.reshape(2, -1).sum(axis=0)
        values = self.cost(self.outcomes).reshape(2, -1)
        conditional = first @ values
        terms = {"cost": (rest_probs, conditional)}
        for name, score in self.scores().items():
            terms[name] = (rest_probs, conditional * score.reshape(2, -1)[0])
        return terms | {self.names[0]: (rest_probs, first[0] * first[1] * (values[1] - values[0]))}

    def pair_terms(self, coefficients: Sequence[tuple[np.ndarray, np.ndarray]]) -> Terms:
        """What one antithetic pair adds.

        Args:
            coefficients: for each variable what multiplies f(b) - f(b') in its gradient, [state, node], and the nodes'
                weights. The states of a pair are (1, 0), (0, 1) and both the likelier outcome.
        """
        likelier = (np.asarray(self.logits) > 0).astype(int)
        differ = expit(-np.abs(self.logits))
        state_probs = np.stack([differ, differ, 1 - 2 * differ])
        bits, antithetic = (
            np.stack([np.full_like(likelier, one), np.full_like(likelier, 1 - one), likelier]) for one in (1, 0)
        )
        states = _combinations(3, len(self.logits))
        variables = np.arange(len(self.logits))
        probs = state_probs[states, variables].prod(axis=1)
        one, other = (self.cost(side[states, variables]) for side in (bits, antithetic))
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


def _categorical_exact(logits: np.ndarray, values: np.ndarray, estimator: str) -> MomentsByParameter:
    probs = np.exp(log_softmax(logits))
    names = _element_names(logits.size)
    scores = dict(zip(names, np.eye(logits.size) - probs[:, None], strict=True))
    terms: Terms = {"cost": (probs, values)} | {name: (probs, values * score) for name, score in scores.items()}
    if estimator == "rao_blackwellized":
        return _without_variance(terms)
    if estimator == "categorical_disarm":
        return _paired(_averaged(_stick_terms(logits, values, names)))
    return _sampled_exact(terms, scores, estimator)


def _stick_terms(logits: np.ndarray, values: np.ndarray, names: tuple[str, ...]) -> Terms:
    """What one pair adds under DisARM on the sticks of the categorical."""
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

    likelier = (stick_logits > 0).astype(int)
    differ = expit(-np.abs(stick_logits))
    states, sticks = _combinations(3, num_sticks), np.arange(num_sticks)
    probs = np.stack([differ, differ, 1 - 2 * differ])[states, sticks].prod(axis=1)
    bits, antithetic = (np.where(states == 2, likelier, np.where(states == same, 1, 0)) for same in (0, 1))
    one, other = first_success(bits), first_success(antithetic)
    reached = sticks <= np.maximum(one, other)[:, None]
    coefficients = (bits - antithetic) * reached * expit(np.abs(stick_logits)) / 2
    gradients = (values[one] - values[other])[:, None] * coefficients @ slopes
    return {"cost": (probs, (values[one] + values[other]) / 2)} | {
        name: (probs, gradient) for name, gradient in zip(names, gradients.T, strict=True)
    }


def _sampled_exact(terms: Terms, scores: Mapping[str, np.ndarray], estimator: str) -> MomentsByParameter:
    """Under estimators that draw their samples independently, and under those of unknown variance."""
    if estimator == "enumeration":
        return _without_variance(terms)
    moments = {
        name: constant(ExactMoments(Exact("finite", _mean(*term)), UNKNOWN, UNKNOWN)) for name, term in terms.items()
    }
    independent = _averaged(terms)
    if estimator in _INDEPENDENT_VALUES:
        moments["cost"] = independent["cost"]
    if estimator == "score_function":
        return _by_name(independent)
    if estimator == "score_function+leave_one_out":
        probs, values = terms["cost"]
        mean, value_variance, _ = _central(probs, values)
        for name, score in scores.items():
            gradient, variance, kurtosis = _central(probs, (values - mean) * score)
            moments[name] = leave_one_out(
                gradient=gradient,
                centred_square=variance + gradient**2,
                centred_kurtosis=kurtosis,
                value_variance=value_variance,
                score_square=_mean(probs, score**2),
            )
    return _by_name(moments)


def _by_name(moments: Mapping[str, MomentsOfSamples]) -> MomentsByParameter:
    return lambda num_samples: {name: of_samples(num_samples) for name, of_samples in moments.items()}


def _averaged(terms: Terms) -> dict[str, MomentsOfSamples]:
    return {name: averaged(*_central(*term)) for name, term in terms.items()}


def _paired(moments: Mapping[str, MomentsOfSamples]) -> MomentsByParameter:
    """Moments of an average of pairs, as a function of the number of samples in them."""

    def by_name(num_samples: int) -> dict[str, ExactMoments]:
        if num_samples < 2 or num_samples % 2:
            raise ValueError(f"num_samples must be even and at least 2, for antithetic pairs, got {num_samples}")
        return {name: of_pairs(num_samples // 2) for name, of_pairs in moments.items()}

    return by_name


def _without_variance(terms: Terms) -> MomentsByParameter:
    return _by_name(
        {
            name: constant(ExactMoments(Exact("finite", _mean(*term)), Exact("finite", 0.0), UNKNOWN))
            for name, term in terms.items()
        }
    )


def _mean(probs: np.ndarray, values: np.ndarray) -> float:
    return float(probs @ values)


def _central(probs: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Mean, variance and kurtosis."""
    mean = _mean(probs, values)
    square = (values - mean) ** 2
    variance = _mean(probs, square)
    # What rounding leaves of a variance that is zero.
    if variance <= 1e-28 * _mean(probs, values**2):
        return mean, 0.0, math.nan
    return mean, variance, _mean(probs, square**2) / variance**2


def _combinations(num_states: int, num_variables: int) -> Outcomes:
    return np.indices((num_states,) * num_variables).reshape(num_variables, -1).T


def _element_names(number: int) -> tuple[str, ...]:
    return tuple(f"logits[{element}]" for element in range(number))


def _check_logits(params: Mapping[str, Any], number: int) -> None:
    _check_names(params, "logits")
    if np.shape(params["logits"]) != (number,):
        raise ValueError(f"logits must be {number} numbers, got shape {np.shape(params['logits'])}: change them")
    _check_finite("logits", params["logits"])


def _check_names(params: Mapping[str, Any], name: str) -> None:
    if set(params) != {name}:
        raise ValueError(f"params must hold {name} alone, got {', '.join(params) or 'none'}: change them")


def _check_number(name: str, numbers: Sequence[float], *, least: int) -> None:
    if not least <= len(numbers) <= MAX_VARIABLES:
        raise ValueError(f"{name} must be from {least} to {MAX_VARIABLES} numbers, got {len(numbers)}: change them")


def _check_finite(name: str, numbers: Sequence[Any]) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {number}: change it")
