"""Costs of discrete latents, whose expectations and estimators' moments are finite sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from vae_jax.distributions import OneHotCategorical
from vae_jax.problems.discrete_costs.discrete_cost_moments import BernoulliCostMoments, categorical_cost_moments
from vae_jax.problems.exact_moments import MomentsByParameter
from vae_jax.problems.parameter_checks import check_finite, check_names, element_names
from vae_jax.problems.problem import ExpectedCost
from vae_jax.typing import Distributions, Latents, Scalar

MAX_VARIABLES = 10
"""Bernoulli variables, or categories: pairs of antithetic samples have 3^D outcomes."""


@dataclass(frozen=True)
class BernoulliCost(ExpectedCost):
    """The cost E[(b - target)^2] of one Bernoulli variable b.

    The parameter is "logit". The gradient in it is p (1 - p) (1 - 2 target).

    Args:
        target: the number that b is compared with. At 1/2 the gradient is zero.

    Raises:
        ValueError: a target that is not finite.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.BernoulliCost(target=0.25)
        >>> moments = problem.exact({"logit": 0.0}, "disarm")(2)  # of one pair of samples
        >>> print(f"{moments['cost'].mean.value:.4f}, gradient {moments['logit'].mean.value:.3f}")
        0.3125, gradient 0.125

    Reference: Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein (2017), section 5.1.
    """

    target: float = 0.45

    name: ClassVar[str] = "bernoulli"

    def __post_init__(self) -> None:
        check_finite({"target": self.target})

    @property
    def default_params(self) -> dict[str, Any]:
        """Both outcomes are as likely."""
        return {"logit": 0.0}

    def check_params(self, params: Mapping[str, Any]) -> None:
        """Raises ValueError unless `params` holds a finite logit and nothing else."""
        check_names(params, ("logit",))
        check_finite({"logit": params["logit"]})

    def q(self, params: Mapping[str, Any]) -> Distributions:
        """Bernoulli with the logit."""
        return dist.Bernoulli(logits=jnp.asarray(params["logit"]))

    def objective(self, latents: Latents, q: Distributions) -> Scalar:
        """(b - target)^2."""
        return (latents - self.target) ** 2

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient.

        Under a biased estimator the mean is that of an unbiased one, and the rest is unknown.

        Raises:
            ValueError: invalid parameters; later, fewer samples than the estimator needs, or an odd number.
        """
        self.check_params(params)
        moments = BernoulliCostMoments((float(params["logit"]),), lambda b: (b[:, 0] - self.target) ** 2, ("logit",))
        return moments.exact(estimator)


@dataclass(frozen=True)
class BernoulliVectorCost(ExpectedCost):
    """The cost E[(weights . b - target)^2] of a vector b of independent Bernoulli variables.

    The square couples the variables. The parameter is "logits", a tuple with one number for each weight.

    Args:
        weights: the weight of each variable, 10 at most.
        target: the number that the weighted sum is compared with.

    Raises:
        ValueError: no weights or too many, or a number that is not finite.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.BernoulliVectorCost(weights=(1.0, 1.0), target=0.0)
        >>> moments = problem.exact({"logits": (0.0, 0.0)}, "enumeration")(1)
        >>> print(f"{moments['cost'].mean.value:.2f}, gradient {moments['logits[0]'].mean.value:.2f}")
        1.50, gradient 0.50
    """

    weights: Sequence[float] = (1.0, -0.7, 0.5)
    target: float = 0.45

    name: ClassVar[str] = "bernoulli-vector"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        _check_number("weights", self.weights, least=1)
        check_finite({"weights": self.weights})
        check_finite({"target": self.target})

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

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient, as those of `BernoulliCost`."""
        self.check_params(params)
        logits = tuple(float(logit) for logit in params["logits"])
        moments = BernoulliCostMoments(
            logits, lambda b: (b @ np.asarray(self.weights) - self.target) ** 2, element_names("logits", logits)
        )
        return moments.exact(estimator)


@dataclass(frozen=True)
class CategoricalCost(ExpectedCost):
    """The cost E[values[k]] of a one-hot categorical variable k.

    The parameter is "logits", a tuple with one number for each value. The gradient in logit k is
    p_k (values[k] - E values).

    Args:
        values: the costs of the categories, from 2 to 10 numbers.

    Raises:
        ValueError: too few values or too many, or one that is not finite.

    Example:
        >>> import vae_jax as vj
        >>> problem = vj.problems.CategoricalCost(values=(1.0, 2.0, 6.0))
        >>> moments = problem.exact({"logits": (0.0, 0.0, 0.0)}, "score_function")(10)
        >>> print(f"{moments['cost'].mean.value:.2f}, gradient {moments['logits[2]'].mean.value:.2f}")  # (6 - 3) / 3
        3.00, gradient 1.00
    """

    values: Sequence[float] = (0.2, 1.0, -0.5, 0.6)

    name: ClassVar[str] = "categorical"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(value) for value in self.values))
        _check_number("values", self.values, least=2)
        check_finite({"values": self.values})

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

    def exact(self, params: Mapping[str, Any], estimator: str) -> MomentsByParameter:
        """The exact moments of the cost and of its gradient, as those of `BernoulliCost`."""
        self.check_params(params)
        logits = np.asarray([float(logit) for logit in params["logits"]])
        return categorical_cost_moments(logits, np.asarray(self.values), estimator)


def _check_logits(params: Mapping[str, Any], number: int) -> None:
    check_names(params, ("logits",))
    if np.shape(params["logits"]) != (number,):
        raise ValueError(f"logits must be {number} numbers, got shape {np.shape(params['logits'])}: change them")
    check_finite({"logits": params["logits"]})


def _check_number(name: str, numbers: Sequence[float], *, least: int) -> None:
    if not least <= len(numbers) <= MAX_VARIABLES:
        raise ValueError(f"{name} must be from {least} to {MAX_VARIABLES} numbers, got {len(numbers)}: change them")
