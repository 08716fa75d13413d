"""Betas, skews and learning rates as functions of the step."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from vae_jax.settings import check_settings
from vae_jax.typing import Scalar
from vae_jax.vae.config.experiment import Experiment, ObjectiveConfig, TrainingConfig

NUM_STAGES = 8
"""Stages of the learning rate schedule `stages`."""


def beta_at(config: ObjectiveConfig, step: Int[Array, ""] | int, num_steps: int) -> Scalar:
    """The weight of the divergence at a step, in float32.

    Args:
        config: `beta`, `beta_schedule`, `beta_ramp` and `beta_cycles` are read.
        step: counted from 0. Past the last, linear stays at beta and cyclical begins another cycle.
        num_steps: steps of the whole training.

    Raises:
        ValueError: a setting is out of its range, or `beta_cycles` are too many to count in 32 bits.

    Reference: Fu et al. (2019), for cyclical.
    """
    check_settings(config)
    if config.beta_schedule == "constant":
        return jnp.full((), config.beta, jnp.float32)
    ramp = config.beta_ramp * num_steps
    position = jnp.asarray(step)
    if config.beta_schedule == "cyclical":
        position = _place_in_cycle(position, config.beta_cycles, num_steps)
    return config.beta * jnp.minimum(1, position.astype(jnp.float32) / ramp)


def _place_in_cycle(step: Int[Array, ""], num_cycles: int, num_steps: int) -> Int[Array, ""]:
    """The step's place in its cycle, from 0 to num_steps: exact though a cycle need not be whole steps long."""
    if num_cycles * num_steps >= 2**31:
        raise ValueError(f"beta_cycles times {num_steps} steps must be below 2^31, got {num_cycles} cycles: take fewer")
    return step % num_steps * num_cycles % num_steps


def alpha_at(config: ObjectiveConfig, step: Int[Array, ""] | int, num_steps: int) -> Scalar:
    """The skew of the geometric Jensen-Shannon divergence at a step, in float32; where it starts, if it is trained.

    Args:
        config: `alpha`, `alpha_schedule` and `alpha_end` are read.
        step: counted from 0; `alpha_end` is reached at `num_steps` and kept.
        num_steps: steps of the whole training.

    Raises:
        ValueError: a setting is out of its range.
    """
    check_settings(config)
    if config.alpha_schedule != "linear":
        return jnp.full((), config.alpha, jnp.float32)
    done = jnp.minimum(1, jnp.asarray(step).astype(jnp.float32) / num_steps)
    # In this form rounding leaves both ends exact and nothing outside [0, 1].
    return (1 - done) * config.alpha + done * config.alpha_end


def learning_rate_schedule(config: TrainingConfig, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    cosine ends at 0 and exponential at a hundredth, after `num_epochs`. Stage i = 0 to 7 of stages takes 3^i epochs at
    10^(-i/7) of the rate; the last one continues.

    Reference: Burda, Grosse & Salakhutdinov (2016), for stages.
    """
    rate, num_steps = config.learning_rate, config.num_epochs * steps_per_epoch
    if config.learning_rate_schedule == "cosine":
        return optax.cosine_decay_schedule(rate, num_steps)
    if config.learning_rate_schedule == "exponential":
        return optax.exponential_decay(rate, num_steps, 0.01, end_value=rate / 100)
    if config.learning_rate_schedule == "stages":
        stages = [optax.constant_schedule(rate * 10 ** (-stage / 7)) for stage in range(NUM_STAGES)]
        # 3^0 + ... + 3^(i-1) epochs lie before stage i.
        starts = [(3**stage - 1) // 2 * steps_per_epoch for stage in range(1, NUM_STAGES)]
        return optax.join_schedules(stages, starts)
    return optax.constant_schedule(rate)


def depends_on_num_epochs(experiment: Experiment) -> bool:
    """Whether a schedule is stretched over the training, so that more epochs would change those before."""
    objective, training = experiment.objective, experiment.training
    return (
        objective.beta_schedule in ("linear", "cyclical")
        or objective.alpha_schedule == "linear"
        or training.learning_rate_schedule in ("cosine", "exponential")
    )
