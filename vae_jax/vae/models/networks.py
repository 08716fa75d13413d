"""The networks of a VAE, in Flax NNX, on flat images [..., X]."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax, nn
from jaxtyping import Array, Float

from vae_jax.vae.config.experiment import ModelConfig, Precision
from vae_jax.vae.models.diagonal_gaussian import DiagonalGaussian

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": partial(nn.leaky_relu, negative_slope=0.2),
    "tanh": jnp.tanh,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
}


class LayerRecipe(NamedTuple):
    """A recipe for layers: the precision of products, the initial values and the activation between them."""

    precision: Precision
    initializer: str
    activation: Callable[[Array], Array]

    def dense(self, num_inputs: int, num_outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
        """A fully connected layer."""
        kernel_init, bias_init = initializers(self.initializer, num_inputs)
        product = float32_product if self.precision == "float32" else bfloat16_product
        return nnx.Linear(
            num_inputs, num_outputs, kernel_init=kernel_init, bias_init=bias_init, dot_general=product, rngs=rngs
        )

    def convolution(self, kind: Any, num_inputs: int, num_outputs: int, rngs: nnx.Rngs) -> Any:
        """A convolution, or its transpose, of stride 2."""
        kernel_init, bias_init = initializers(self.initializer, 9 * num_inputs)
        dtype = None if self.precision == "float32" else jnp.bfloat16
        return kind(
            num_inputs, num_outputs, (3, 3), strides=2, dtype=dtype, precision=lax.Precision.HIGHEST,
            kernel_init=kernel_init, bias_init=bias_init, rngs=rngs,
        )  # fmt: skip


def layer_recipe(config: ModelConfig, precision: Precision) -> LayerRecipe:
    """The recipe for the layers of a model."""
    return LayerRecipe(precision, config.initializer, ACTIVATIONS[config.activation])


def initializers(name: str, fan_in: int) -> tuple[nn.initializers.Initializer, nn.initializers.Initializer]:
    """The initializers of a layer's weights and biases."""
    if name == "uniform_fan_in":
        uniform = uniform_within(1 / math.sqrt(fan_in))
        return uniform, uniform
    weights = {"lecun_normal": nn.initializers.lecun_normal, "glorot_uniform": nn.initializers.glorot_uniform}
    return weights[name](), nn.initializers.zeros


def uniform_within(bound: float) -> nn.initializers.Initializer:
    """Draws from -bound to bound."""

    def init(key: Any, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def float32_product(x: Array, kernel: Array, dimensions: Any, **_: Any) -> Array:
    """x @ kernel in float32, where accelerators use fewer digits unless asked; for `lax.dot_general` in a layer."""
    return lax.dot_general(x, kernel, dimensions, precision=lax.Precision.HIGHEST)


def bfloat16_product(x: Array, kernel: Array, dimensions: Any, **_: Any) -> Array:
    """x @ kernel with bfloat16 operands and a float32 sum; takes the place of `lax.dot_general` in a layer.

    The gradient of x is a product in bfloat16 too. That of the kernel stays float32: its sum over few examples is the
    one product that processors with bfloat16 units do no faster in it (`benchmarks/training/training_speed.py`).
    """
    along_x = _along_x(x, lax.stop_gradient(kernel), dimensions)
    return along_x + _along_kernel(lax.stop_gradient(x), kernel, dimensions)


# In two parts, each with the gradient of one operand. As one function, JAX would ask the product with x's cotangent for
# a bfloat16 result, which XLA computes on float32 operands.
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _along_x(x: Array, kernel: Array, dimensions: Any) -> Array:
    return _rounded_product(x, kernel, dimensions)


def _along_x_forward(x: Array, kernel: Array, dimensions: Any) -> tuple[Array, Array]:
    return _rounded_product(x, kernel, dimensions), kernel


def _along_x_backward(dimensions: Any, kernel: Array, cotangent: Array) -> tuple[Array, None]:
    del dimensions
    return _rounded_product(cotangent, kernel, (((cotangent.ndim - 1,), (1,)), ((), ()))), None


_along_x.defvjp(_along_x_forward, _along_x_backward)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _along_kernel(x: Array, kernel: Array, dimensions: Any) -> Array:
    return jnp.zeros((*x.shape[:-1], kernel.shape[1]), x.dtype)


@_along_kernel.defjvp
def _along_kernel_jvp(dimensions: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    return _along_kernel(*primals, dimensions), float32_product(primals[0], tangents[1], dimensions)


def _rounded_product(x: Array, kernel: Array, dimensions: Any) -> Array:
    return lax.dot_general(
        x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), dimensions, preferred_element_type=jnp.float32
    )


class MLP(nnx.Module):
    """Fully connected layers with an activation after each."""

    def __init__(self, num_inputs: int, sizes: Sequence[int], recipe: LayerRecipe, rngs: nnx.Rngs) -> None:
        widths = (num_inputs, *sizes)
        self.layers = nnx.List([recipe.dense(*pair, rngs) for pair in itertools.pairwise(widths)])
        self.activation = recipe.activation
        self.num_outputs = widths[-1]

    def __call__(self, x: Float[Array, "*B X"]) -> Float[Array, "*B H"]:
        for layer in self.layers:
            x = self.activation(layer(x))
        return x


class Convolutions(nnx.Module):
    """Convolutions of stride 2 over an image, with an activation after each."""

    def __init__(self, shape: Sequence[int], sizes: Sequence[int], recipe: LayerRecipe, rngs: nnx.Rngs) -> None:
        self.shape = as_volume(shape)
        channels = (self.shape[-1], *sizes)
        self.layers = nnx.List([recipe.convolution(nnx.Conv, *pair, rngs) for pair in itertools.pairwise(channels)])
        self.activation = recipe.activation
        self.num_outputs = math.prod(halved(self.shape, len(sizes))) * channels[-1]

    def __call__(self, x: Float[Array, "*B X"]) -> Float[Array, "*B H"]:
        volume = x.reshape(*x.shape[:-1], *self.shape)
        for layer in self.layers:
            volume = self.activation(layer(volume).astype(x.dtype))
        return volume.reshape(*x.shape[:-1], -1)


class TransposedConvolutions(nnx.Module):
    """The mirror of `Convolutions`, to an image of any size, with no activation after the last."""

    def __init__(
        self, num_inputs: int, shape: Sequence[int], sizes: Sequence[int], outputs_per_pixel: int, recipe: LayerRecipe,
        rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.shape = as_volume(shape)
        self.seed_shape = (*halved(self.shape, len(sizes)), sizes[-1])
        self.outputs_per_pixel = outputs_per_pixel
        self.inner = recipe.dense(num_inputs, math.prod(self.seed_shape), rngs)
        channels = (*reversed(sizes), self.shape[-1] * outputs_per_pixel)
        self.layers = nnx.List(
            [recipe.convolution(nnx.ConvTranspose, *pair, rngs) for pair in itertools.pairwise(channels)]
        )
        self.activation = recipe.activation

    def __call__(self, z: Float[Array, "*B D"]) -> Float[Array, "*B X"]:
        batch = z.shape[:-1]
        volume = self.inner(z).reshape(*batch, *self.seed_shape)
        for layer in self.layers:
            volume = layer(self.activation(volume)).astype(z.dtype)
        height, width, _ = self.shape
        # Halving rounds up, so that doubling may give a row or a column too many.
        return volume[..., :height, :width, :].reshape(*batch, -1)


class MirroredMLP(nnx.Module):
    """The decoder of an MLP: its widths in reverse, then a layer to the outputs."""

    def __init__(
        self, num_inputs: int, sizes: Sequence[int], num_outputs: int, recipe: LayerRecipe, rngs: nnx.Rngs
    ) -> None:
        self.trunk = MLP(num_inputs, tuple(reversed(sizes)), recipe, rngs)
        self.head = recipe.dense(self.trunk.num_outputs, num_outputs, rngs)

    def __call__(self, z: Float[Array, "*B D"]) -> Float[Array, "*B X"]:
        return self.head(self.trunk(z))


class GaussianEncoder(nnx.Module):
    """An input to a diagonal Gaussian: one trunk with two heads, or a trunk for each."""

    def __init__(
        self, make_trunk: Callable[[], Any], latent_size: int, config: ModelConfig, recipe: LayerRecipe, rngs: nnx.Rngs
    ) -> None:
        self.trunk = make_trunk()
        self.scale_trunk = make_trunk() if config.encoder == "separate" else None
        self.loc_head = recipe.dense(self.trunk.num_outputs, latent_size, rngs)
        self.scale_head = recipe.dense(self.trunk.num_outputs, latent_size, rngs)
        self.log_scale = LOG_SCALES[config.posterior_scale]

    def __call__(self, x: Float[Array, "*B X"]) -> DiagonalGaussian:
        hidden = self.trunk(x)
        scale_hidden = hidden if self.scale_trunk is None else self.scale_trunk(x)
        return DiagonalGaussian(self.loc_head(hidden), self.log_scale(self.scale_head(scale_hidden)))


LOG_SCALES: dict[str, Callable[[Array], Array]] = {
    "log_variance": lambda log_variance: log_variance / 2,
    "sigmoid": nn.log_sigmoid,
}
"""Functions from the output of the encoder's second head to the log of the scale."""


def as_volume(shape: Sequence[int]) -> tuple[int, int, int]:
    """Height, width and channels of an image's shape.

    Raises:
        ValueError: the shape is no image's.
    """
    if len(shape) not in (2, 3):
        raise ValueError(
            f"a convolutional network must see images [height, width] or [height, width, channels], got shape "
            f"{tuple(shape)}: choose network mlp"
        )
    height, width, *channels = shape
    return height, width, channels[0] if channels else 1


def halved(volume: tuple[int, int, int], times: int) -> tuple[int, int]:
    """Height and width after so many strides of 2."""
    height, width, _ = volume
    for _ in range(times):
        height, width = -(-height // 2), -(-width // 2)
    return height, width
