"""Targets that know their exact answers."""

from collections.abc import Callable
from typing import Any

from vae_jax.problems.discrete_costs.discrete_cost import BernoulliCost, BernoulliVectorCost, CategoricalCost
from vae_jax.problems.exact_moments import Exact, ExactMoments
from vae_jax.problems.gamma_moment import GammaMoment
from vae_jax.problems.gaussian_costs.gaussian_cost import CosineCost, ExponentialCost, SquareCost
from vae_jax.problems.linear_gaussian.linear_gaussian import LinearGaussian
from vae_jax.problems.linear_gaussian.linear_gaussian_chain import LinearGaussianChain
from vae_jax.problems.poisson_gamma.poisson_gamma import GammaPrior, PoissonGamma
from vae_jax.problems.problem import Problem
from vae_jax.problems.shifted_posterior import ShiftedPosterior

PROBLEMS: dict[str, Callable[..., Any]] = {
    problem.name: problem
    for problem in (
        PoissonGamma, SquareCost, CosineCost, ExponentialCost, GammaMoment, LinearGaussian, ShiftedPosterior,
        BernoulliCost, BernoulliVectorCost, CategoricalCost,
    )
}  # fmt: skip
"""Problems by the names that commands use."""

COSTS = {
    "square": "target",
    "cosine": "frequency",
    "exponential": "rate",
    "bernoulli": "target",
    "bernoulli-vector": "target",
}
"""Problems with one number that their cost depends on, and its name."""

__all__ = [
    "COSTS",
    "PROBLEMS",
    "BernoulliCost",
    "BernoulliVectorCost",
    "CategoricalCost",
    "CosineCost",
    "Exact",
    "ExactMoments",
    "ExponentialCost",
    "GammaMoment",
    "GammaPrior",
    "LinearGaussian",
    "LinearGaussianChain",
    "PoissonGamma",
    "Problem",
    "ShiftedPosterior",
    "SquareCost",
]
