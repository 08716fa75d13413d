"""A model without its parameters: it initialises them, and binds them to the model."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vae_jax.typing import PRNGKey
from vae_jax.vae.config.experiment import Experiment, ModelConfig, Precision
from vae_jax.vae.models.vae import VAE, HierarchicalVAE, Params


@dataclass(frozen=True)
class Architecture:
    """A model without its parameters, for images of one shape.

    Example:
        With all parameters at zero the encoder's q(z|x) is the prior, and every pixel has the probability one half:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.vae import Architecture, ModelConfig
        >>> architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(8,)), (8, 8))
        >>> model = architecture.bind(jax.tree.map(jnp.zeros_like, architecture.init(jax.random.key(0))))
        >>> f"{model.log_likelihood(jnp.ones(64), jnp.zeros(2)):.2f} nats"  # 64 log(1/2)
        '-44.36 nats'
    """

    config: ModelConfig
    shape: tuple[int, ...]
    precision: Precision = "float32"

    @classmethod
    def of(cls, experiment: Experiment, shape: tuple[int, ...]) -> "Architecture":
        """The architecture that an experiment sets, for images of one shape."""
        return cls(experiment.model, shape, experiment.training.precision)

    def init(self, key: PRNGKey, mean_image: Float[Array, " X"] | None = None) -> Params:
        """Initial parameters.

        Args:
            key: consumed.
            mean_image: mean of the training images [X], from 0 to 1. It is needed by `output_bias` data_mean, where the
                output bias starts at its logit.

        Returns:
            Nested dictionaries of arrays.

        Raises:
            ValueError: `output_bias` is data_mean and there is no mean image.
        """
        params = nnx.to_pure_dict(nnx.state(self._make(nnx.Rngs(key)), nnx.Param))
        if self.config.output_bias == "data_mean":
            if mean_image is None:
                raise ValueError("mean_image must be given with output_bias data_mean, got None: average the images")
            params["decoder"]["head"]["bias"] = _logits_of_mean(mean_image)
        return params

    def bind(self, params: Params) -> VAE:
        """Binds parameters to the model, for use within one traced function."""
        graph, places = _split(self)
        state = jax.tree.map(lambda leaf: leaf, places)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)

    def _make(self, rngs: nnx.Rngs) -> VAE:
        kind = HierarchicalVAE if self.config.network == "hierarchical" else VAE
        return kind(self.config, self.shape, self.precision, rngs)


@lru_cache
def _split(architecture: Architecture) -> Any:
    """The graph of a model and the places of its parameters."""
    return nnx.split(nnx.eval_shape(lambda: architecture._make(nnx.Rngs(0))), nnx.Param)


def _logits_of_mean(mean_image: Float[Array, " X"]) -> Float[Array, " X"]:
    """Burda et al.'s start of the last bias: the logit of the mean training image, whose extremes are clipped."""
    mean = jnp.clip(mean_image, 0.001, 0.999)
    return jnp.log(mean) - jnp.log1p(-mean)
