"""log p(x) of single images under a trained model, by every estimator of the evidence."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from vae_jax.distributions import Reparameterized
from vae_jax.inference.evidence import ESTIMATES, Budget, EvidenceEstimate, compare_estimates
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.data.binarization import WHITE
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import VAE, Params
from vae_jax.vae.results.trained_model import TrainedModel


@partial(jax.tree_util.register_dataclass, data_fields=["model"], meta_fields=[])
@dataclass(frozen=True)
class ModelPrior(Reparameterized):
    """p(z) of a model as a distribution, whatever layers it has."""

    model: VAE

    batch_shape = ()
    has_rsample = True

    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> Any:
        """Samples of the prior: the structure of the model's latents, each leaf [*sample_shape, D]."""
        if not sample_shape:
            return self.model.sample_prior(key)
        (number,) = sample_shape
        return jax.vmap(self.model.sample_prior)(jax.random.split(key, number))

    def log_prob(self, value: Any) -> Scalar:
        """log p(z) of one sample (nats)."""
        return self.model.log_prior(value)


def image_evidence(
    trained: TrainedModel,
    images: UInt8[np.ndarray, "N X"],
    key: PRNGKey,
    *,
    budget: Budget,
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, EvidenceEstimate]:
    """log p(x) of each image by every estimator, the encoder's q(z|x) as the proposal.

    Args:
        trained: of one seed, with a likelihood of pixels as the model sees them.
        images: as the model sees them, times 255.
        key: consumed; each image has a split of its own.
        budget: of samples, chains and temperatures, for an image.
        on_progress: called with the share of the images that is done.

    Returns:
        By the names of `vae_jax.inference.evidence.ESTIMATES`, estimates with a leading axis of images.

    Raises:
        ValueError: a model of several seeds, or no image.
    """
    num_seeds = trained.experiment.num_seeds
    if num_seeds > 1:
        raise ValueError(f"trained must be a model of one seed, got {num_seeds}: choose one with of_seed")
    if not len(images):
        raise ValueError("images must have at least one, got none: hand some in")
    results = []
    for number, image in enumerate(images):
        image_key = jax.random.fold_in(key, number)
        results.append(jax.device_get(_evidence(trained.architecture, trained.params, image, image_key, budget=budget)))
        on_progress((number + 1) / len(images))
    of_images = jax.tree.map(lambda *leaves: np.stack(leaves), *results)
    # A compiled function gives a dictionary back in alphabetical order.
    return {name: of_images[name] for name in ESTIMATES}


@partial(jax.jit, static_argnames=("architecture", "budget"))
def _evidence(
    architecture: Architecture, params: Params, image: UInt8[Array, " X"], key: PRNGKey, *, budget: Budget
) -> dict[str, EvidenceEstimate]:
    model = architecture.bind(params)
    x = image.astype(jnp.float32) / WHITE

    def log_joint(z: Any) -> Scalar:
        return model.log_likelihood(x, z) + model.log_prior(z)

    q = model.posterior(model.encode(x))
    return compare_estimates(partial(model.log_likelihood, x), log_joint, ModelPrior(model), q, key, budget=budget)
