"""What training maximises: each objective of one image, and their mean over a batch (nats an image)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.bounds import doubly_reparameterized, elbo_terms, importance_weighted, plain
from vae_jax.divergences import dual_geometric_jensen_shannon, geometric_jensen_shannon
from vae_jax.estimators import ESTIMATORS
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.config import ObjectiveConfig
from vae_jax.vae.model import VAE
from vae_jax.vae.networks import Gaussian

IWAE_GRADIENTS = {"plain": plain, "doubly_reparameterized": doubly_reparameterized}

JENSEN_SHANNON = {"geometric_js": geometric_jensen_shannon, "dual_geometric_js": dual_geometric_jensen_shannon}


class BatchTerms(NamedTuple):
    """Weighted means over the images of a batch (nats an image)."""

    objective: Float[Array, "..."]
    """What is maximised."""
    elbo: Float[Array, "..."]
    """The true evidence lower bound, whatever is maximised."""
    reconstruction: Float[Array, "..."]
    """E_q[log p(x|z)]."""
    kl: Float[Array, "..."]
    """KL(q(z|x) || p(z))."""


class ImageTerms(NamedTuple):
    """The objective of an image is its bound minus beta times its penalties' sum."""

    bound: Scalar
    penalties: Float[Array, " P"]
    reconstruction: Scalar
    kl: Scalar


class Weights(NamedTuple):
    """What an objective's schedules give at a step."""

    beta: Scalar
    alpha: Scalar


def batch_terms(
    config: ObjectiveConfig,
    model: VAE,
    x: Float[Array, "B X"],
    key: PRNGKey,
    *,
    image_weights: Float[Array, " B"],
    weights: Weights,
) -> BatchTerms:
    """The objective of a batch and the ELBO beside it.

    Args:
        config: which objective.
        model: with its parameters.
        x: the images, from 0 to 1.
        key: consumed; each image has a split of its own.
        image_weights: 1 for an image that counts and 0 for one that fills the batch up.
        weights: of the divergence.
    """
    of_image = partial(IMAGE_TERMS[config.objective], config, model, alpha=weights.alpha)
    terms = jax.vmap(of_image)(model.encode(x), x, jax.random.split(key, len(x)))
    mean = partial(weighted_mean, weights=image_weights)
    # Free bits are of the batch: a latent that is idle for one image may be used for another.
    penalty = jnp.maximum(jax.vmap(mean, in_axes=1)(terms.penalties), config.free_bits).sum()
    return BatchTerms(
        objective=mean(terms.bound) - weights.beta * penalty,
        elbo=mean(terms.reconstruction - terms.kl),
        reconstruction=mean(terms.reconstruction),
        kl=mean(terms.kl),
    )


def weighted_mean(values: Float[Array, " B"], weights: Float[Array, " B"]) -> Scalar:
    """sum_b w_b v_b / sum_b w_b."""
    return values @ weights / weights.sum()


def _elbo_closed_form(
    config: ObjectiveConfig, model: VAE, code: Gaussian, x: Float[Array, " X"], key: PRNGKey, *, alpha: Scalar
) -> ImageTerms:
    del alpha
    penalties = model.kl_by_latent(code, key)
    reconstruction = _terms(config, model, code, x, key).reconstruction
    return ImageTerms(reconstruction, penalties, reconstruction, penalties.sum())


def _elbo_sampled(
    config: ObjectiveConfig, model: VAE, code: Gaussian, x: Float[Array, " X"], key: PRNGKey, *, alpha: Scalar
) -> ImageTerms:
    del alpha
    terms = elbo_terms(
        partial(model.log_likelihood, x), model.posterior(code), key, config.num_samples,
        log_prior=model.log_prior, estimator=ESTIMATORS[config.estimator],
    )  # fmt: skip
    return ImageTerms(terms.reconstruction, terms.divergence[None], terms.reconstruction, terms.divergence)
