"""The optimizers of a configuration."""

from typing import Any

import jax.numpy as jnp
import optax

from vae_jax.vae.config.experiment import TrainingConfig
from vae_jax.vae.training.training_schedules import learning_rate_schedule


def make_optimizer(config: TrainingConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """An optimizer of optax with the configuration's schedule, after clipping the gradient if it says so."""
    learning_rate = learning_rate_schedule(config, steps_per_epoch)
    moments: dict[str, Any] = {"b1": config.adam_b1, "b2": config.adam_b2, "eps": config.adam_epsilon}
    match config.optimizer:
        case "adam":
            optimizer = optax.adam(learning_rate, **moments)
        case "adamw":
            optimizer = optax.adamw(learning_rate, **moments, weight_decay=config.weight_decay)
        case "adamax":
            optimizer = optax.adamax(learning_rate, **moments)
        case "rmsprop":
            optimizer = optax.rmsprop(learning_rate)
        case "sgd":
            optimizer = optax.sgd(learning_rate)
    if config.gradient_clip is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.gradient_clip), optimizer)


def learning_rate_at(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step."""
    return float(jnp.asarray(learning_rate_schedule(config, steps_per_epoch)(step)))
