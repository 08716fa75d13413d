"""A linear-Gaussian VAE whose scores, likelihood and exact posterior are known, and images for it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, TrainingConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.results.trained_model import TrainedModel
from vae_jax.vae.training.training_loop import Learned

SHAPE, SCALE = (2, 3), 0.5
LINEAR = Architecture(ModelConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian", likelihood_scale=SCALE), SHAPE)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (257, 6), dtype=np.uint8)
X = IMAGES / 255
DIRECTIONS = np.linalg.qr(GENERATOR.standard_normal((6, 2)))[0].T * np.array([[1.5], [0.4]])
"""Orthogonal, so that the exact posterior is diagonal: p(x|z) = Normal(z @ DIRECTIONS + OFFSET, SCALE)."""
OFFSET = np.full(6, 0.5)
PRECISION = 1 + (DIRECTIONS**2).sum(1) / SCALE**2


def linear_params(*, shift=0.0, widening=1.0):
    """The exact posterior, or one whose means are shifted by so many scales and whose scales are wider."""
    kernel = DIRECTIONS.T / SCALE**2 / PRECISION
    content = {
        "encoder": {
            "loc_head": {"kernel": kernel, "bias": shift / np.sqrt(PRECISION) - OFFSET @ kernel},
            "scale_head": {"kernel": np.zeros((6, 2)), "bias": 2 * math.log(widening) - np.log(PRECISION)},
        },
        "decoder": {"head": {"kernel": DIRECTIONS, "bias": OFFSET}},
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), content)


EXACT = linear_params()
ROUGH = linear_params(shift=0.5, widening=1.3)
LOG_EVIDENCE = stats.multivariate_normal(OFFSET, DIRECTIONS.T @ DIRECTIONS + SCALE**2 * np.eye(6)).logpdf(X)


def exact_terms(shift, widening):
    """E_q[log p(x|z)] of every image, and its KL by latent."""
    variances = widening**2 / PRECISION
    means = (X - OFFSET) @ DIRECTIONS.T / SCALE**2 / PRECISION + shift / np.sqrt(PRECISION)
    squares = ((X - OFFSET - means @ DIRECTIONS) ** 2).sum(1) + variances @ (DIRECTIONS**2).sum(1)
    reconstruction = -squares / 2 / SCALE**2 - 6 * math.log(SCALE * math.sqrt(2 * math.pi))
    return reconstruction, (means**2 + variances - 1 - np.log(variances)) / 2, means


HIERARCHICAL = Architecture(
    ModelConfig(network="hierarchical", latent_size=3, hidden_sizes=(4,), top_latent_size=2, top_hidden_sizes=(4,)),
    SHAPE,
)


def trained(params, num_seeds=1):
    model, data = LINEAR.config, DataConfig(binarization="none")
    return TrainedModel(
        Experiment(data, model, training=TrainingConfig(), num_seeds=num_seeds), SHAPE, 7, Learned(params, None)
    )
