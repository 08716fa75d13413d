"""Signal and noise of a trained model's stochastic gradient, layer by layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from vae_jax.statistics import gradient_statistics
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.data.binarization import batch_pixels
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import Params
from vae_jax.vae.training.objectives import DivergenceWeights, batch_terms

NUM_GROUPS = 10
"""Groups of replicates that the standard errors are jackknifed over."""

ALL_LAYERS = "all"
"""The name of all layers together."""


@dataclass(frozen=True)
class LayerNoise:
    """The gradient of the training loss in one layer's parameters, over batches and samples (nats per image)."""

    layer: str
    num_parameters: int
    num_replicates: int
    resolved: bool
    """Whether the signal's square is above two of its errors, or free of error. If not, `signal` is an upper limit."""
    signal: float
    """Length of the mean gradient, corrected for the replicates' noise. An upper limit if unresolved."""
    signal_se: float | None
    """None if unresolved."""
    noise: float
    """Root of the summed variances of one replicate's gradient."""
    noise_se: float
    signal_to_noise: float
    """`signal / noise`, an upper limit if unresolved. It is infinite without noise, and NaN without both."""
    signal_to_noise_se: float | None


def training_loss(
    experiment: Experiment, architecture: Architecture, pixels: UInt8[Array, "N X"], weights: DivergenceWeights
) -> Callable[[Params, PRNGKey], Scalar]:
    """Makes the loss of a training step as a function of the model's parameters and a key.

    The key draws a batch of images, binarizes them and samples the latents. Images are drawn with replacement, so that
    batches of different keys are independent.

    Args:
        experiment: the objective and the batch size.
        architecture: the model.
        pixels: the prepared training images, times 255 [N, X].
        weights: weight and skew of the divergence.

    Returns:
        The function from parameters and a key to the loss (nats per image, scalar).

    Example:
        With all parameters at zero every one of the 64 pixels costs log 2, and the KL is zero:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.vae import Architecture, DivergenceWeights, Experiment, ModelConfig, training_loss
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> architecture = Architecture.of(experiment, (8, 8))
        >>> params = jax.tree.map(jnp.zeros_like, architecture.init(jax.random.key(0)))
        >>> weights = DivergenceWeights(beta=jnp.ones(()), alpha=jnp.zeros(()))
        >>> loss = training_loss(experiment, architecture, jnp.zeros((100, 64), jnp.uint8), weights)
        >>> f"{jax.jit(loss)(params, jax.random.key(1)):.2f} nats per image"
        '44.36 nats per image'
    """

    def loss(params: Params, key: PRNGKey) -> Scalar:
        batch_key, binarization_key, sample_key = jax.random.split(key, 3)
        batch = jax.random.randint(batch_key, (experiment.training.batch_size,), 0, len(pixels))
        x = batch_pixels(pixels[batch], experiment.data.binarization, binarization_key)
        terms = batch_terms(
            experiment.objective, architecture.bind(params), x, sample_key,
            image_weights=jnp.ones(len(batch)), weights=weights,
        )  # fmt: skip
        return -terms.objective

    return loss


def noise_by_layer(
    loss: Callable[[Params, PRNGKey], Scalar],
    params: Params,
    key: PRNGKey,
    num_replicates: int,
    *,
    mesh: Mesh | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> list[LayerNoise]:
    """Measures signal and noise of a loss's gradient in each layer, then in all layers together.

    Args:
        loss: function from a model's parameters and a key to a scalar.
        params: nested dictionaries of arrays. The innermost dictionaries are the layers.
        key: consumed.
        num_replicates: number of draws of the gradient, a multiple of 10 from 20 on.
        mesh: devices that replicates are sharded over.
        on_progress: called with the share that is done.

    Returns:
        A row for each layer, and the row "all".

    Raises:
        ValueError: the number of replicates is not a multiple of 10, or below 20.

    Example:
        A gradient with mean 1 and standard deviation 2:

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from vae_jax.vae import noise_by_layer
        >>> loss = lambda params, key: params["dense"]["bias"] * (1 + 2 * jax.random.normal(key))
        >>> layer, _ = noise_by_layer(loss, {"dense": {"bias": jnp.zeros(())}}, jax.random.key(0), 10_000)
        >>> layer.layer, f"signal {layer.signal:.1f}, noise {layer.noise:.1f}"
        ('dense', 'signal 1.0, noise 2.0')
    """
    size, rest = divmod(num_replicates, NUM_GROUPS)
    if rest or size < 2:
        raise ValueError(f"num_replicates must be a multiple of {NUM_GROUPS} from 20, got {num_replicates}: round it")
    groups = []
    for number in range(NUM_GROUPS):
        statistics = gradient_statistics(
            loss, params, jax.random.fold_in(key, number), size, tail_size=0, mesh=mesh
        ).gradient
        groups.append(jax.device_get((statistics.mean, statistics.variance)))
        on_progress((number + 1) / NUM_GROUPS)
    means, variances = (_by_layer([group[part] for group in groups]) for part in (0, 1))
    return [_layer_noise(layer, means[layer], variances[layer], num_replicates) for layer in means]


def _by_layer(trees: list[Params]) -> dict[str, Float[np.ndarray, "G P"]]:
    """The numbers of each layer in each group's tree, and of all layers together at the end."""
    layers: dict[str, list[list[Any]]] = {}
    for number, tree in enumerate(trees):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            # The last part of a path says kernel or bias.
            layer = ".".join(str(part.key) for part in path[:-1] or path)
            layers.setdefault(layer, [[] for _ in trees])[number].append(np.ravel(leaf).astype(float))
    found = {layer: np.stack([np.concatenate(leaves) for leaves in groups]) for layer, groups in layers.items()}
    return found | {ALL_LAYERS: np.concatenate(list(found.values()), axis=1)}


def _layer_noise(
    layer: str, means: Float[np.ndarray, "G P"], variances: Float[np.ndarray, "G P"], num_replicates: int
) -> LayerNoise:
    """Estimates from all groups, and their errors from leaving each out in turn."""
    squares = partial(_squares, size=num_replicates // len(means))
    signal, noise = squares(means, variances)
    left_out = np.array([squares(np.delete(means, g, 0), np.delete(variances, g, 0)) for g in range(len(means))])
    signal_se, noise_se = _jackknifed(left_out)
    if noise:
        ratio, ratio_se = signal / noise, _jackknifed(left_out[:, 0] / left_out[:, 1])
    else:
        ratio, ratio_se = math.inf if signal else math.nan, 0.0
    resolved = bool(signal > 2 * signal_se) or not noise
    return LayerNoise(
        layer=layer,
        num_parameters=means.shape[1],
        num_replicates=num_replicates,
        resolved=resolved,
        signal=float(np.sqrt(signal)) if resolved else _largest(signal, signal_se),
        signal_se=_error_of_root(signal, signal_se) if resolved else None,
        noise=float(np.sqrt(noise)),
        noise_se=_error_of_root(noise, noise_se),
        signal_to_noise=float(np.sqrt(ratio)) if resolved else _largest(ratio, ratio_se),
        signal_to_noise_se=_error_of_root(ratio, ratio_se) if resolved else None,
    )


def _jackknifed(left_out: Float[np.ndarray, "G ..."]) -> Any:
    """Standard errors of what each row gives an estimate of from all groups but one."""
    return np.sqrt((len(left_out) - 1) * left_out.var(axis=0))


def _error_of_root(square: float, error: float) -> float:
    """The standard error of a root, by the delta method."""
    return float(error / (2 * np.sqrt(square))) if square else 0.0


def _largest(square: float, error: float) -> float:
    """The root of what a square is at most, two standard errors up."""
    return float(np.sqrt(max(square, 0.0) + 2 * error))


def _squares(means: Any, variances: Any, *, size: int) -> tuple[float, float]:
    """Squares of signal and noise. The squared length of a mean of R draws holds the noise's / R too."""
    noise = variances.mean(0).sum()
    return (means.mean(0) ** 2).sum() - noise / (size * len(means)), noise
