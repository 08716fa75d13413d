"""Objectives that training maximises: each for one image, and their mean over a batch (nats per image)."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.bounds import ElboTerms, doubly_reparameterized, elbo_terms, importance_weighted, plain, vimco
from vae_jax.divergences import (
    dual_geometric_jensen_shannon_standard_normal,
    geometric_jensen_shannon_standard_normal,
)
from vae_jax.estimators import ESTIMATORS
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.config.experiment import ObjectiveConfig
from vae_jax.vae.models.diagonal_gaussian import DiagonalGaussian
from vae_jax.vae.models.vae import VAE

IWAE_GRADIENTS = {"plain": plain, "doubly_reparameterized": doubly_reparameterized, "vimco": vimco}

JENSEN_SHANNON_DIVERGENCES = {
    "geometric_js": geometric_jensen_shannon_standard_normal,
    "dual_geometric_js": dual_geometric_jensen_shannon_standard_normal,
}


class BatchTerms(NamedTuple):
    """Weighted means over the images of a batch (nats per image)."""

    objective: Float[Array, "..."]
    """The objective, which is maximised."""
    elbo: Float[Array, "..."]
    """The true evidence lower bound, whatever is maximised."""
    reconstruction: Float[Array, "..."]
    """E_q[log p(x|z)]."""
    kl: Float[Array, "..."]
    """KL(q(z|x) || p(z))."""


class ImageTerms(NamedTuple):
    """The terms of one image. Its objective is `bound` minus beta times the sum of `penalties`."""

    bound: Scalar
    penalties: Float[Array, " P"]
    reconstruction: Scalar
    kl: Scalar


class DivergenceWeights(NamedTuple):
    """Weight and skew of the divergence at a step, from the schedules of an objective."""

    beta: Scalar
    alpha: Scalar


def batch_terms(
    config: ObjectiveConfig,
    model: VAE,
    x: Float[Array, "B X"],
    key: PRNGKey,
    *,
    image_weights: Float[Array, " B"],
    weights: DivergenceWeights,
) -> BatchTerms:
    """Computes the objective of a batch, and its ELBO whatever the objective is.

    Args:
        config: the objective, its schedules and its estimator.
        model: the model with its parameters.
        x: images, from 0 to 1 [B, X].
        key: consumed; each image has a split of its own.
        image_weights: 1 for an image that counts, and 0 for one that only fills the batch up [B].
        weights: weight and skew of the divergence.

    Returns:
        Weighted means over the images (nats per image).

    Example:
        With all parameters at zero every one of the 64 pixels costs log 2, and the KL is zero:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.vae import Architecture, DivergenceWeights, ModelConfig, ObjectiveConfig, batch_terms
        >>> architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(8,)), (8, 8))
        >>> sizes = {"image_weights": jnp.ones(3), "weights": DivergenceWeights(beta=jnp.ones(()), alpha=jnp.zeros(()))}
        >>> def evaluate(params, key):
        ...     return batch_terms(ObjectiveConfig(), architecture.bind(params), jnp.zeros((3, 64)), key, **sizes)
        >>> params = jax.tree.map(jnp.zeros_like, architecture.init(jax.random.key(0)))
        >>> terms = jax.jit(evaluate)(params, jax.random.key(1))
        >>> f"ELBO {terms.elbo:.2f}, KL {terms.kl:.2f}"
        'ELBO -44.36, KL 0.00'
    """
    of_image = partial(IMAGE_TERMS[config.objective], config, model, alpha=weights.alpha)
    terms = jax.vmap(of_image)(model.encode(x), x, jax.random.split(key, len(x)))
    chex.assert_shape((terms.bound, terms.reconstruction, terms.kl), (len(x),))
    mean = partial(weighted_mean, weights=image_weights)
    penalties = jax.vmap(mean, in_axes=1)(terms.penalties)
    # Free bits are of the batch: a latent that is idle for one image may be used for another. Without any, a sampled
    # divergence may be negative, and must stay so to be unbiased.
    if config.free_bits > 0:
        penalties = jnp.maximum(penalties, config.free_bits)
    return BatchTerms(
        objective=mean(terms.bound) - weights.beta * penalties.sum(),
        elbo=mean(terms.reconstruction - terms.kl),
        reconstruction=mean(terms.reconstruction),
        kl=mean(terms.kl),
    )


def weighted_mean(values: Float[Array, " B"], weights: Float[Array, " B"]) -> Scalar:
    """sum_b w_b v_b / sum_b w_b."""
    # Not a product of vectors, which accelerators round to fewer digits.
    return (values * weights).sum() / weights.sum()


def _elbo(
    config: ObjectiveConfig, model: VAE, code: DiagonalGaussian, x: Float[Array, " X"], key: PRNGKey, *, alpha: Scalar
) -> ImageTerms:
    """The ELBO; its KL by latent where it has a closed form."""
    del alpha
    if config.kl == "closed_form":
        by_latent = model.kl_by_latent(code, key)
        terms = _terms(config, model, code, x, key, divergence=lambda _: by_latent.sum())
        return ImageTerms(terms.reconstruction, by_latent, terms.reconstruction, terms.divergence)
    terms = _terms(config, model, code, x, key, log_prior=model.log_prior)
    return ImageTerms(terms.reconstruction, terms.divergence[None], terms.reconstruction, terms.divergence)


def _jensen_shannon(
    config: ObjectiveConfig, model: VAE, code: DiagonalGaussian, x: Float[Array, " X"], key: PRNGKey, *, alpha: Scalar
) -> ImageTerms:
    """A geometric Jensen-Shannon divergence instead of the KL. It bounds nothing."""
    middle_alpha = alpha if config.alpha_convention == "nielsen" else 1 - alpha
    divergence = JENSEN_SHANNON_DIVERGENCES[config.objective](*code, alpha=alpha, middle_alpha=middle_alpha)
    kl = model.kl_by_latent(code, key).sum()
    terms = _terms(config, model, code, x, key, divergence=lambda _: kl)
    return ImageTerms(terms.reconstruction, divergence[None], terms.reconstruction, terms.divergence)


def _iwae(
    config: ObjectiveConfig, model: VAE, code: DiagonalGaussian, x: Float[Array, " X"], key: PRNGKey, *, alpha: Scalar
) -> ImageTerms:
    """The importance-weighted bound of k samples, and the ELBO of the same."""
    del alpha
    q = model.posterior(code)
    bound = importance_weighted(
        lambda z: model.log_likelihood(x, z) + model.log_prior(z), q, key, config.num_samples,
        gradient=IWAE_GRADIENTS[config.iwae_gradient],
    )  # fmt: skip
    terms = _terms(config, model, code, x, key, log_prior=model.log_prior)
    return ImageTerms(bound, jnp.zeros(1), *lax.stop_gradient(terms))


def _terms(
    config: ObjectiveConfig, model: VAE, code: DiagonalGaussian, x: Float[Array, " X"], key: PRNGKey, **divergence: Any
) -> ElboTerms:
    return elbo_terms(
        partial(model.log_likelihood, x),
        model.posterior(code),
        key,
        config.num_samples,
        estimator=ESTIMATORS[config.estimator],
        **divergence,
    )


IMAGE_TERMS = {"elbo": _elbo, "geometric_js": _jensen_shannon, "dual_geometric_js": _jensen_shannon, "iwae": _iwae}
