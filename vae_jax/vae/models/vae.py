"""Variational autoencoders: an encoder q(z|x), a prior p(z) and a decoder p(x|z), as Flax NNX modules.

A batch of images is encoded once, [B, X] to codes with a leading axis B. All else is about one image or one sample, and
is vmapped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flax import nnx
from jaxtyping import Array, Float

from vae_jax.distributions import Reparameterized
from vae_jax.divergences import kl_standard_normal_log_scale
from vae_jax.typing import Distributions, PRNGKey, Scalar
from vae_jax.vae.config.experiment import ModelConfig, Precision
from vae_jax.vae.models.diagonal_gaussian import (
    DiagonalGaussian,
    gaussian_log_prob,
    gaussian_rsample,
    standard_normal_log_prob,
)
from vae_jax.vae.models.likelihoods import LIKELIHOODS, Gaussian, Outputs, PixelLikelihood, Pixels
from vae_jax.vae.models.networks import (
    MLP,
    Convolutions,
    GaussianEncoder,
    MirroredMLP,
    TransposedConvolutions,
    layer_recipe,
)

Params: TypeAlias = dict[str, Any]
"""The parameters of a model: nested dictionaries of float32 arrays."""


class VAE(nnx.Module):
    """One layer of latents z [D] with a standard normal prior and a diagonal Gaussian q(z|x)."""

    has_closed_form_kl = True

    def __init__(self, config: ModelConfig, shape: Sequence[int], precision: Precision, rngs: nnx.Rngs) -> None:
        recipe = layer_recipe(config, precision)
        num_pixels = math.prod(shape)
        self.likelihood_name = config.likelihood
        self.likelihood_scale = config.likelihood_scale
        if config.likelihood == "gaussian" and config.likelihood_scale is None:
            self.log_scale = nnx.Param(jnp.zeros(()))
        outputs_per_pixel = LIKELIHOODS[config.likelihood].outputs_per_pixel
        sizes = config.hidden_sizes
        if config.network == "convolutional":
            make_trunk = partial(Convolutions, shape, sizes, recipe, rngs)
            self.decoder = TransposedConvolutions(config.latent_size, shape, sizes, outputs_per_pixel, recipe, rngs)
        else:
            make_trunk = partial(MLP, num_pixels, sizes, recipe, rngs)
            self.decoder = MirroredMLP(config.latent_size, sizes, num_pixels * outputs_per_pixel, recipe, rngs)
        self.encoder = GaussianEncoder(make_trunk, config.latent_size, config, recipe, rngs)

    @property
    def likelihood(self) -> PixelLikelihood:
        """The distribution of the pixels given the decoder's outputs."""
        if self.likelihood_name != "gaussian":
            return LIKELIHOODS[self.likelihood_name]()
        fixed = self.likelihood_scale
        return Gaussian(self.log_scale[...] if fixed is None else math.log(fixed))

    def encode(self, x: Float[Array, "*B X"]) -> DiagonalGaussian:
        """The parameters of q(z|x), with the leading axes of `x`."""
        return self.encoder(x)

    def posterior(self, code: DiagonalGaussian) -> Distributions:
        """q(z|x) of one image from its code."""
        return dist.Normal(code.loc, jnp.exp(code.log_scale)).to_event(1)

    def decode(self, z: Any) -> Outputs:
        """Parameters of p(x|z) for one sample."""
        outputs = self.decoder(z)
        outputs_per_pixel = self.likelihood.outputs_per_pixel
        return outputs if outputs_per_pixel == 1 else outputs.reshape(-1, outputs_per_pixel)

    def log_likelihood(self, x: Pixels, z: Any) -> Scalar:
        """log p(x|z) of one image and one sample (nats)."""
        return self.likelihood.log_prob(self.decode(z), x)

    def log_prior(self, z: Any) -> Scalar:
        """log p(z) of one sample (nats)."""
        return standard_normal_log_prob(z)

    def sample_prior(self, key: PRNGKey) -> Any:
        """One sample of p(z)."""
        return jax.random.normal(key, (self.encoder.loc_head.out_features,))

    def kl_by_latent(self, code: DiagonalGaussian, key: PRNGKey) -> Float[Array, " D"]:
        """KL(q(z_d|x) || p(z_d)) of one image, exactly (nats)."""
        del key
        return jax.vmap(kl_standard_normal_log_scale)(*code)

    def latent_means(self, code: DiagonalGaussian, key: PRNGKey) -> Float[Array, " D"]:
        """E_q[z|x] of one image, exactly."""
        del key
        return code.loc


class TwoLayers(NamedTuple):
    """A sample of a hierarchical model."""

    lower: Float[Array, "*S D"]
    upper: Float[Array, "*S U"]


class HierarchicalVAE(VAE):
    """Two layers of latents: q(lower|x) q(upper|lower) and p(upper) p(lower|upper) p(x|lower).

    Reference: Burda, Grosse & Salakhutdinov (2016), section 5.
    """

    has_closed_form_kl = False

    def __init__(self, config: ModelConfig, shape: Sequence[int], precision: Precision, rngs: nnx.Rngs) -> None:
        super().__init__(config, shape, precision, rngs)
        recipe = layer_recipe(config, precision)
        sizes, lower, upper = config.top_hidden_sizes, config.latent_size, config.top_latent_size
        self.upper_encoder = GaussianEncoder(partial(MLP, lower, sizes, recipe, rngs), upper, config, recipe, rngs)
        mirrored = tuple(reversed(sizes))
        self.lower_prior = GaussianEncoder(partial(MLP, upper, mirrored, recipe, rngs), lower, config, recipe, rngs)

    def posterior(self, code: DiagonalGaussian) -> Distributions:
        """q(lower|x) q(upper|lower) of one image from its code."""
        return TwoLayerPosterior(code, self.upper_encoder)

    def decode(self, z: TwoLayers) -> Outputs:
        """Parameters of p(x|lower) for one sample."""
        return super().decode(z.lower)

    def log_prior(self, z: TwoLayers) -> Scalar:
        """log p(upper) + log p(lower|upper) of one sample (nats)."""
        return standard_normal_log_prob(z.upper) + gaussian_log_prob(self.lower_prior(z.upper), z.lower).sum()

    def sample_prior(self, key: PRNGKey) -> TwoLayers:
        """One sample of the prior, from the top down."""
        upper_key, lower_key = jax.random.split(key)
        upper = jax.random.normal(upper_key, (self.upper_encoder.loc_head.out_features,))
        return TwoLayers(gaussian_rsample(self.lower_prior(upper), lower_key, ()), upper)

    def kl_by_latent(self, code: DiagonalGaussian, key: PRNGKey) -> Float[Array, " D"]:
        """One draw whose mean is each latent's part of KL(q || p), the lower layer's before the upper's (nats)."""
        z = self.posterior(code).rsample(key)
        upper = self.upper_encoder(z.lower)
        in_upper = jax.vmap(kl_standard_normal_log_scale)(*upper)
        return jnp.concatenate(
            [gaussian_log_prob(code, z.lower) - gaussian_log_prob(self.lower_prior(z.upper), z.lower), in_upper]
        )

    def latent_means(self, code: DiagonalGaussian, key: PRNGKey) -> Float[Array, " D"]:
        """E_q[lower|x], exactly, and E_q[upper|lower] at one draw of the lower layer."""
        return jnp.concatenate([code.loc, self.upper_encoder(gaussian_rsample(code, key, ())).loc])


@partial(jax.tree_util.register_dataclass, data_fields=["code", "upper_encoder"], meta_fields=[])
@dataclass(frozen=True)
class TwoLayerPosterior(Reparameterized):
    """q(lower|x) q(upper|lower), whose second factor is a network of the first's sample."""

    code: DiagonalGaussian
    upper_encoder: GaussianEncoder

    batch_shape = ()
    has_rsample = True

    def rsample(self, key: PRNGKey, sample_shape: tuple[int, ...] = ()) -> TwoLayers:
        """Samples, differentiable in the parameters of both factors."""
        lower_key, upper_key = jax.random.split(key)
        lower = gaussian_rsample(self.code, lower_key, sample_shape)
        return TwoLayers(lower, gaussian_rsample(self.upper_encoder(lower), upper_key, ()))

    def log_prob(self, value: TwoLayers) -> Scalar:
        """log q(lower|x) + log q(upper|lower) of one sample (nats)."""
        upper = self.upper_encoder(value.lower)
        return gaussian_log_prob(self.code, value.lower).sum() + gaussian_log_prob(upper, value.upper).sum()
