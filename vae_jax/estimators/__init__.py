"""Gradient estimators of expectations. Every estimator has the signature of `vae_jax.typing.Estimator`."""

from vae_jax.distributions import OneHotCategorical
from vae_jax.estimators.antithetic_pairs import antithetic_pairs
from vae_jax.estimators.arm import arm, categorical_disarm, disarm
from vae_jax.estimators.baselines import (
    MovingAverage,
    baseline_loss,
    init_moving_average,
    leave_one_out,
    leave_one_pair_out,
    moving_average,
    no_baseline,
    update_moving_average,
)
from vae_jax.estimators.delta_method import delta_method_pathwise, delta_method_score
from vae_jax.estimators.enumeration import enumeration, rao_blackwellized
from vae_jax.estimators.estimator_registry import (
    ESTIMATORS,
    REGISTRY,
    Evaluations,
    RegisteredEstimator,
    Work,
    estimator_named,
    estimator_table,
)
from vae_jax.estimators.gumbel_softmax import gumbel_softmax, straight_through
from vae_jax.estimators.measure_valued import coupled_measure_valued, measure_valued
from vae_jax.estimators.pathwise import closed_form_entropy, inverse_cdf, pathwise, sticking_the_landing
from vae_jax.estimators.rebar import rebar, relax, surrogate_loss
from vae_jax.estimators.sample_blocks import in_blocks
from vae_jax.estimators.score_function import moving_average_score, optimal_score, score_function
from vae_jax.estimators.sobol import randomized_sobol

__all__ = [
    "ESTIMATORS",
    "REGISTRY",
    "Evaluations",
    "MovingAverage",
    "OneHotCategorical",
    "RegisteredEstimator",
    "Work",
    "antithetic_pairs",
    "arm",
    "baseline_loss",
    "categorical_disarm",
    "closed_form_entropy",
    "coupled_measure_valued",
    "delta_method_pathwise",
    "delta_method_score",
    "disarm",
    "enumeration",
    "estimator_named",
    "estimator_table",
    "gumbel_softmax",
    "in_blocks",
    "init_moving_average",
    "inverse_cdf",
    "leave_one_out",
    "leave_one_pair_out",
    "measure_valued",
    "moving_average",
    "moving_average_score",
    "no_baseline",
    "optimal_score",
    "pathwise",
    "randomized_sobol",
    "rao_blackwellized",
    "rebar",
    "relax",
    "score_function",
    "sticking_the_landing",
    "straight_through",
    "surrogate_loss",
    "update_moving_average",
]
