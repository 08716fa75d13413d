"""The estimators that estimator_speed.py times: a problem for each, and the draws that it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vae_jax.estimators import ESTIMATORS
from vae_jax.problems import BernoulliCost, CategoricalCost, SquareCost

NoiseDraw = Callable[[Array, tuple[int, ...]], Array]
"""Maps a key and a shape to draws."""


def _gamma(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.gamma(key, 1.5, shape)


def _categorical(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.categorical(key, jnp.zeros(4), shape=shape)


def _gumbels(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.gumbel(key, (*shape, 4)).sum(axis=-1)


NORMAL, UNIFORM, EXPONENTIAL, SIGN = (
    jax.random.normal, jax.random.uniform, jax.random.exponential, jax.random.rademacher,
)  # fmt: skip

BERNOULLI = {
    **dict.fromkeys(("score_function", "score_function+leave_one_out", "score_function+optimal_score"), (UNIFORM,)),
    **dict.fromkeys(("measure_valued", "coupled_measure_valued"), (UNIFORM,)),
    **dict.fromkeys(("gumbel_softmax", "straight_through", "rebar", "relax"), (UNIFORM,)),
    **dict.fromkeys(("arm", "disarm"), (UNIFORM,)),
}
CATEGORICAL = {"categorical_disarm": (UNIFORM, UNIFORM, UNIFORM)}

PAIRED = ("arm", "disarm", "categorical_disarm", "score_function+antithetic_pairs", "pathwise+antithetic_pairs")
"""Estimators that make two samples of one draw."""

MEASURED = (NORMAL, EXPONENTIAL, EXPONENTIAL, _gamma, SIGN, NORMAL)
COUPLED = (NORMAL, EXPONENTIAL, _gamma, SIGN, UNIFORM)
GAUSSIAN: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        (
            "pathwise", "sticking_the_landing", "closed_form_entropy", "inverse_cdf", "score_function",
            "score_function+leave_one_out", "score_function+optimal_score", "score_function+delta_method",
            "pathwise+delta_method", "score_function+antithetic_pairs", "pathwise+antithetic_pairs",
            "score_function+sobol", "pathwise+sobol",
        ),
        (NORMAL,),
    ),
    "measure_valued": MEASURED,
    "coupled_measure_valued": COUPLED,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One estimator on one problem, and the draws that it makes for each sample."""

    problem: Any
    estimator: str
    draws: tuple[NoiseDraw, ...]

    @property
    def name(self) -> str:
        """The estimator and the problem."""
        return f"{self.estimator} ({self.problem.name})"

    @property
    def floor(self) -> tuple[tuple[NoiseDraw, ...], int]:
        """The draws, and the number of samples that one of them serves."""
        return self.draws, 2 if self.estimator in PAIRED else 1

    def loss(self, num_samples: int) -> Callable[..., Array]:
        """The expected cost, estimated from so many samples."""
        return partial(self.problem.estimate, num_samples=num_samples, estimator=ESTIMATORS[self.estimator])

    @property
    def params(self) -> dict[str, Array]:
        """The problem's default parameters."""
        return {name: jnp.asarray(value, float) for name, value in self.problem.default_params.items()}


def estimator_cases() -> list[Case]:
    """Every estimator on its scalar problem."""
    groups = ((SquareCost(), GAUSSIAN), (BernoulliCost(), BERNOULLI), (CategoricalCost(), CATEGORICAL))
    return [Case(problem, name, draws) for problem, group in groups for name, draws in group.items()]
