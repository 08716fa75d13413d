"""What a configuration may not say, told before anything is computed."""

import math
from collections.abc import Callable
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from vae_jax.estimators import ESTIMATORS
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig
from vae_jax.vae.models.networks import as_volume, halved
from vae_jax.vae.training.objectives import JENSEN_SHANNON

GREY_LIKELIHOODS = ("continuous_bernoulli", "gaussian", "grey_bernoulli")


def check_experiment(experiment: Experiment, shape: tuple[int, ...] | None = None) -> None:
    """Refuses an experiment that cannot run.

    Args:
        experiment: as a whole.
        shape: of an image, where it is known.

    Raises:
        ValueError: one line that names the field, what it must be and what to do.
    """
    data, model, objective = experiment.data, experiment.model, experiment.objective
    for config in (experiment, data, model, objective, experiment.training):
        _check_fields(config)
    _check_likelihood(data, model)
    _check_network(model, shape)
    _check_free_bits(objective)
    _check_estimator(objective)
    _check_hierarchical(model, objective)


class Range(NamedTuple):
    """Which numbers a field may have, and in words."""

    holds: Callable[[float], bool]
    words: str


_AT_LEAST_0 = Range(lambda value: value >= 0, "at least 0")
_AT_LEAST_1 = Range(lambda value: value >= 1, "at least 1")
_FINITE_AND_NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "finite and at least 0")
_FINITE_AND_POSITIVE = Range(lambda value: 0 < value < math.inf, "finite and above 0")
_SHARE = Range(lambda value: 0 <= value <= 1, "in [0, 1]")
_POSITIVE_SHARE = Range(lambda value: 0 < value <= 1, "in (0, 1]")
_DECAY = Range(lambda value: 0 <= value < 1, "in [0, 1)")

RANGES = {
    "seed": Range(lambda value: 0 <= value < 2**32, "from 0 to 2^32 - 1"),
    "num_seeds": _AT_LEAST_1,
    "binarization_seed": _AT_LEAST_0,
    "num_validation": _AT_LEAST_0,
    "latent_size": _AT_LEAST_1,
    "hidden_sizes": _AT_LEAST_1,
    "top_latent_size": _AT_LEAST_1,
    "top_hidden_sizes": _AT_LEAST_1,
    "likelihood_scale": _FINITE_AND_POSITIVE,
    "num_samples": _AT_LEAST_1,
    "beta": _FINITE_AND_NOT_NEGATIVE,
    "beta_ramp": _POSITIVE_SHARE,
    "beta_cycles": _AT_LEAST_1,
    "free_bits": _FINITE_AND_NOT_NEGATIVE,
    "alpha": _SHARE,
    "alpha_end": _SHARE,
    "num_epochs": _AT_LEAST_1,
    "batch_size": _AT_LEAST_1,
    "learning_rate": _FINITE_AND_POSITIVE,
    "adam_b1": _DECAY,
    "adam_b2": _DECAY,
    "adam_epsilon": _FINITE_AND_POSITIVE,
    "weight_decay": _FINITE_AND_NOT_NEGATIVE,
    "gradient_clip": _FINITE_AND_POSITIVE,
    "patience": _AT_LEAST_1,
}
"""Of each number, and of each in a tuple."""


def _check_fields(config: Any) -> None:
    """Refuses values of another type, or outside a field's choices or range."""
    hints = get_type_hints(type(config))
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        if not _fits(value, hints[name]):
            raise ValueError(f"{name} must be {_in_words(hints[name])}, got {value!r}: choose of these")
        allowed = RANGES.get(name)
        numbers = value if isinstance(value, tuple) else (value,)
        if allowed is not None and not all(number is None or allowed.holds(number) for number in numbers):
            raise ValueError(f"{name} must be {allowed.words}, got {value}: choose another number")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    match get_origin(hint):
        case origin if origin is Literal:
            return value in get_args(hint)
        case origin if origin is UnionType:
            return any(_fits(value, option) for option in get_args(hint))
        case origin if origin is tuple:
            return isinstance(value, tuple) and all(_fits(element, get_args(hint)[0]) for element in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        *others, last = get_args(hint)
        return f"{', '.join(others)} or {last}"
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def check_binarization(likelihood: str, binarization: str) -> None:
    """Refuses grey pixels under a likelihood of binary ones, and the reverse.

    Raises:
        ValueError: naming both.
    """
    if likelihood == "bernoulli" and binarization == "none":
        raise ValueError(
            "binarization must be stochastic, fixed or threshold under likelihood bernoulli, whose pixels are 0 or 1, "
            "got none: choose one, or a likelihood of grey pixels (continuous_bernoulli, gaussian, categorical; "
            "grey_bernoulli is the cross-entropy, which is no likelihood)"
        )
    if likelihood in GREY_LIKELIHOODS and binarization != "none":
        raise ValueError(
            f"binarization must be none under likelihood {likelihood}, whose pixels are grey, got {binarization}: "
            "choose none, or likelihood bernoulli"
        )


def _check_likelihood(data: DataConfig, model: ModelConfig) -> None:
    check_binarization(model.likelihood, data.binarization)
    if model.output_bias == "data_mean" and model.likelihood not in ("bernoulli", "grey_bernoulli"):
        raise ValueError(
            f"output_bias must be initializer under likelihood {model.likelihood}, whose mean is not the sigmoid of an "
            "output, got data_mean: choose initializer"
        )


def _check_network(model: ModelConfig, shape: tuple[int, ...] | None) -> None:
    if model.network != "convolutional":
        return
    if model.output_bias == "data_mean":
        raise ValueError(
            "output_bias must be initializer with network convolutional, whose last bias is of channels and not of "
            "pixels, got data_mean: choose initializer"
        )
    num_strides = len(model.hidden_sizes)
    if num_strides == 0:
        raise ValueError(
            "hidden_sizes must hold the channels of at least one layer with network convolutional, got (): add some"
        )
    if shape is None:
        return
    volume = as_volume(shape)
    if 1 in halved(volume, num_strides - 1):
        raise ValueError(
            f"hidden_sizes must leave an image that each stride of 2 can halve, got {num_strides} layers for "
            f"{volume[0]} x {volume[1]} pixels: take fewer"
        )


def _check_free_bits(config: ObjectiveConfig) -> None:
    if config.free_bits > 0 and config.objective != "elbo":
        raise ValueError(
            f"free_bits must be 0 under objective {config.objective}, got {config.free_bits}: choose objective elbo"
        )
    if config.free_bits > 0 and config.kl == "sampled":
        raise ValueError(
            f"free_bits must be 0 with kl sampled, which is not had by latent, got {config.free_bits}: choose kl "
            "closed_form"
        )


def _check_takes_gaussians(name: str, num_samples: int) -> None:
    """Hands the estimator such a posterior as a VAE has, without computing anything."""
    q = dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)

    def estimate(key: jax.Array) -> jax.Array:
        return ESTIMATORS[name](lambda z, _: (z**2).sum(), q, key, num_samples)

    try:
        jax.eval_shape(estimate, jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"estimator {name}: {error}") from error


def _check_estimator(config: ObjectiveConfig) -> None:
    name = config.estimator
    if name not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, got {name}: choose of these")
    _check_takes_gaussians(name, config.num_samples)
    if config.objective == "iwae" and config.iwae_gradient == "vimco" and config.num_samples < 2:
        raise ValueError(f"num_samples must be at least 2 with iwae_gradient vimco, got {config.num_samples}: raise it")
    if config.objective == "iwae" and name != "pathwise":
        raise ValueError(
            f"estimator must be pathwise under objective iwae, got {name}: choose how it is differentiated by "
            "iwae_gradient"
        )
    if name == "sticking_the_landing" and (config.objective != "elbo" or config.kl != "sampled"):
        raise ValueError(
            "estimator must not be sticking_the_landing where the divergence has a closed form, for it is pathwise "
            "there: choose objective elbo and kl sampled"
        )


def _check_hierarchical(model: ModelConfig, objective: ObjectiveConfig) -> None:
    if model.network != "hierarchical":
        return
    if objective.objective in JENSEN_SHANNON:
        raise ValueError(
            "objective must be elbo or iwae with network hierarchical, whose q and prior are not Gaussian together, "
            f"got {objective.objective}: choose one of them, or network mlp"
        )
    if objective.objective == "elbo" and objective.kl == "closed_form":
        raise ValueError(
            "kl must be sampled with network hierarchical, which has none in closed form, got closed_form: choose "
            "sampled"
        )
