"""Validates an experiment before any computation."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vae_jax.estimators import estimator_named
from vae_jax.settings import check_settings
from vae_jax.vae.config.experiment import Experiment, ModelConfig, ObjectiveConfig
from vae_jax.vae.config.setting_conflicts import check_settings_agree
from vae_jax.vae.models.networks import as_volume, halved


def check_experiment(experiment: Experiment, shape: tuple[int, ...] | None = None) -> None:
    """Checks that an experiment can run, and raises an error if not.

    Args:
        experiment: the experiment.
        shape: shape of an image, where it is known.

    Raises:
        ValueError: one line that names the setting, what it must be and what to do.

    Example:
        >>> from vae_jax.vae import Experiment, ObjectiveConfig, check_experiment
        >>> check_experiment(Experiment())
        >>> check_experiment(Experiment(objective=ObjectiveConfig(num_samples=0)))
        Traceback (most recent call last):
        ValueError: num_samples must be at least 1, got 0: choose another number
    """
    check_settings(experiment)
    check_settings_agree(experiment)
    check_estimator(experiment.objective)
    if shape is not None:
        check_image_shape(experiment.model, shape)


def check_estimator(config: ObjectiveConfig) -> None:
    """Hands the estimator such a posterior as a VAE has, without computing anything.

    Raises:
        ValueError: no estimator has the name, or it refuses the posterior or the number of samples.
    """
    estimator = estimator_named(config.estimator)
    q = dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)

    def estimate(key: jax.Array) -> jax.Array:
        return estimator(lambda z, _: (z**2).sum(), q, key, config.num_samples)

    try:
        jax.eval_shape(estimate, jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"estimator {config.estimator}: {error}") from error


def check_image_shape(model: ModelConfig, shape: tuple[int, ...]) -> None:
    """Refuses images that a convolutional network cannot see, or cannot halve so often.

    Raises:
        ValueError: one line that names the shape or the setting.
    """
    if model.network != "convolutional":
        return
    volume, num_strides = as_volume(shape), len(model.hidden_sizes)
    if 1 in halved(volume, num_strides - 1):
        raise ValueError(
            f"hidden_sizes must leave an image that each stride of 2 can halve, got {num_strides} layers for "
            f"{volume[0]} x {volume[1]} pixels: take fewer"
        )
