"""Scores of a trained model on a set of images: the ELBO, its terms, and the latents that are active."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from vae_jax.bounds import elbo_terms
from vae_jax.statistics import mean_se
from vae_jax.typing import PRNGKey
from vae_jax.vae.data.binarization import WHITE
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.diagonal_gaussian import DiagonalGaussian
from vae_jax.vae.models.vae import VAE, Params
from vae_jax.vae.training.many_seeds import over_seeds, to_devices

IMAGES_AT_ONCE = 250

ACTIVE_VARIANCE = 0.01
"""Variance of a latent's mean over images above which the latent is active (Burda et al. 2016, section 5)."""


class Scores(NamedTuple):
    """Scores of N images (nats). With several seeds each score has a leading axis of seeds."""

    elbo: Float[Array, "*S N"]
    reconstruction: Float[Array, "*S N"]
    kl: Float[Array, "*S N"]
    kl_by_latent: Float[Array, "*S D"]
    """Mean over the images."""
    kl_by_latent_se: Float[Array, "*S D"]
    """Standard error of that mean."""
    variance_of_means: Float[Array, "*S D"]
    """Var_x(E_q[z_d|x]), which says whether a latent is active."""

    @property
    def active(self) -> Array | np.ndarray:
        """Whether each latent is active [D]."""
        return self.variance_of_means > ACTIVE_VARIANCE


def make_score(
    architecture: Architecture,
    images: UInt8[np.ndarray, "N X"],
    *,
    num_samples: int = 1,
    num_seeds: int = 1,
    mesh: Mesh | None = None,
) -> Callable[[PRNGKey, Params], Scores]:
    """Makes the function that scores a model's parameters on prepared images.

    Args:
        architecture: the model without its parameters.
        images: images as the model sees them, times 255 [N, X].
        num_samples: number of samples of q(z|x) for each image.
        num_seeds: number of models. Above 1, keys and parameters have a leading axis of that length.
        mesh: devices that seeds are sharded over.

    Returns:
        The function from a key and parameters to the scores (nats).

    Example:
        With all parameters at zero every one of the 64 pixels costs log 2, and the KL is zero:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from vae_jax.vae import Architecture, ModelConfig, make_score
        >>> architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(8,)), (8, 8))
        >>> params = jax.tree.map(jnp.zeros_like, architecture.init(jax.random.key(0)))
        >>> scores = make_score(architecture, np.zeros((3, 64), np.uint8))(jax.random.key(1), params)
        >>> scores.elbo.round(2).tolist(), scores.kl_by_latent.tolist()
        ([-44.36, -44.36, -44.36], [0.0, 0.0])
    """
    size = min(IMAGES_AT_ONCE, len(images))
    groups = _in_groups(images, size)
    score = _compiled_score(architecture, len(images), num_samples, num_seeds, mesh)
    return partial(score, to_devices(groups, mesh))


# Remembered, so that a model that is scored again in one process is not compiled again.
@lru_cache(maxsize=16)
def _compiled_score(
    architecture: Architecture, num_images: int, num_samples: int, num_seeds: int, mesh: Mesh | None
) -> Callable[[UInt8[Array, "G g X"], PRNGKey, Params], Scores]:
    def score(groups: UInt8[Array, "G g X"], key: PRNGKey, params: Params) -> Scores:
        model = architecture.bind(params)

        def of_group(group: UInt8[Array, "g X"], number: Array) -> tuple[Array, ...]:
            x = group.astype(jnp.float32) / WHITE
            keys = jax.random.split(jax.random.fold_in(key, number), len(group))
            return jax.vmap(partial(_score_image, model, num_samples))(model.encode(x), x, keys)

        rows = lax.map(lambda arguments: of_group(*arguments), (groups, jnp.arange(len(groups))))
        of_images = (row.reshape(-1, *row.shape[2:])[:num_images] for row in rows)
        return _scores(*of_images)

    return jax.jit(over_seeds(score, num_seeds, mesh))


def _score_image(
    model: VAE, num_samples: int, code: DiagonalGaussian, x: Float[Array, " X"], key: PRNGKey
) -> tuple[Array, ...]:
    elbo_key, kl_key, *means_keys = jax.random.split(key, 4)
    kl_by_latent = model.kl_by_latent(code, kl_key)
    q = model.posterior(code)
    if model.has_closed_form_kl:
        terms = elbo_terms(
            partial(model.log_likelihood, x), q, elbo_key, num_samples, divergence=lambda _: kl_by_latent.sum()
        )
    else:
        terms = elbo_terms(partial(model.log_likelihood, x), q, elbo_key, num_samples, log_prior=model.log_prior)
    means = (model.latent_means(code, means_key) for means_key in means_keys)
    return terms.reconstruction, terms.divergence, kl_by_latent, *means


def _scores(
    reconstruction: Float[Array, " N"],
    kl: Float[Array, " N"],
    kl_by_latent: Float[Array, "N D"],
    means: Float[Array, "N D"],
    other_means: Float[Array, "N D"],
) -> Scores:
    # The means are two draws where the model can only draw them; their covariance is free of the draws' own variance.
    deviations = (means - means.mean(0)[None]) * (other_means - other_means.mean(0)[None])
    return Scores(
        reconstruction - kl,
        reconstruction,
        kl,
        kl_by_latent.mean(0),
        mean_se(kl_by_latent, 0),
        deviations.sum(0) / (len(kl) - 1),
    )


def _in_groups(images: UInt8[np.ndarray, "N X"], size: int) -> UInt8[np.ndarray, "G g X"]:
    """Groups of equal size; the last is filled up with black images."""
    missing = -len(images) % size
    padded = np.concatenate([images, np.zeros((missing, images.shape[1]), np.uint8)])
    return padded.reshape(-1, size, images.shape[1])
