import math
import re
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from vae_jax.vae.config.experiment import ModelConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.networks import (
    ACTIVATIONS,
    LOG_SCALES,
    as_volume,
    bfloat16_product,
    float32_product,
    halved,
    initializers,
)

SHAPE = (7, 5, 3)
DIMENSIONS = (((1,), (0,)), ((), ()))


@lru_cache
def initial(architecture):
    return jax.jit(architecture.init)(jax.random.key(0))


def params_of(shape=SHAPE, **fields):
    return initial(Architecture(ModelConfig(**fields), shape))


def shapes_of(shape=SHAPE, **fields):
    return jax.eval_shape(Architecture(ModelConfig(**fields), shape).init, jax.random.key(0))


def kernels(layers):
    """Shapes of a stack's kernels, in its order."""
    return [layers[number]["kernel"].shape for number in sorted(layers)]


def test_the_decoder_mirrors_the_encoder():
    params = shapes_of((3, 4), latent_size=2, hidden_sizes=(9, 7, 5))
    encoder, decoder = params["encoder"], params["decoder"]
    assert kernels(encoder["trunk"]["layers"]) == [(12, 9), (9, 7), (7, 5)]
    assert encoder["loc_head"]["kernel"].shape == encoder["scale_head"]["kernel"].shape == (5, 2)
    assert kernels(decoder["trunk"]["layers"]) == [(2, 5), (5, 7), (7, 9)]
    assert decoder["head"]["kernel"].shape == (9, 12)


@pytest.mark.parametrize("network", ["mlp", "hierarchical"])
def test_a_network_may_have_no_hidden_layer(network):
    config = ModelConfig(network=network, latent_size=2, hidden_sizes=(), top_latent_size=3, top_hidden_sizes=())
    architecture = Architecture(config, (3, 4))
    params = initial(architecture)
    assert params["decoder"]["head"]["kernel"].shape == (2, 12)
    model, x = architecture.bind(params), jnp.ones((1, 12))
    loc = x @ params["encoder"]["loc_head"]["kernel"]
    np.testing.assert_allclose(model.encode(x).loc, loc, rtol=1e-6)


def test_the_convolutional_decoder_mirrors_the_encoder():
    params = shapes_of(network="convolutional", latent_size=4, hidden_sizes=(6, 8))
    assert kernels(params["encoder"]["trunk"]["layers"]) == [(3, 3, 3, 6), (3, 3, 6, 8)]
    assert params["encoder"]["loc_head"]["kernel"].shape == (2 * 2 * 8, 4)
    assert params["decoder"]["inner"]["kernel"].shape == (4, 2 * 2 * 8)
    assert kernels(params["decoder"]["layers"]) == [(3, 3, 8, 6), (3, 3, 6, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["shared", "separate"])
def test_separate_encoders_share_nothing(encoder):
    architecture = Architecture(
        ModelConfig(latent_size=2, hidden_sizes=(6, 4), activation="tanh", encoder=encoder), (3, 4)
    )
    params, x = initial(architecture), jnp.linspace(0, 1, 12)[None]

    @jax.jit
    @jax.jacobian
    def gradients(params):
        code = architecture.bind(params).encode(x)
        return code.loc.sum(), code.log_scale.sum()

    of_loc, of_scale = (gradient["encoder"] for gradient in gradients(params))
    used_by_both = [
        jax.tree_util.keystr(path)
        for (path, one), other in zip(
            jax.tree_util.tree_leaves_with_path(of_loc), jax.tree.leaves(of_scale), strict=True
        )
        if np.any(one) and np.any(other)
    ]
    assert (used_by_both == []) == (encoder == "separate")
    assert all(name.startswith("['trunk']") for name in used_by_both)
    if encoder == "separate":
        first, second = (params["encoder"][name]["layers"][0]["kernel"] for name in ("trunk", "scale_trunk"))
        assert not np.allclose(first, second)


@pytest.mark.parametrize(
    ("name", "spread"),
    [
        ("lecun_normal", 1 / math.sqrt(300)),
        ("glorot_uniform", math.sqrt(2 / (300 + 200))),
        ("uniform_fan_in", 1 / math.sqrt(300) / math.sqrt(3)),
    ],
)
def test_initial_weights_have_their_mean_and_spread(name, spread):
    layer = params_of((300,), latent_size=2, hidden_sizes=(200,), initializer=name)["encoder"]["trunk"]["layers"][0]
    kernel, bias = np.asarray(layer["kernel"], float), np.asarray(layer["bias"], float)
    # Six standard errors of 60,000 draws, of which a normal's square varies the most.
    assert abs(kernel.mean()) < 6 * spread / math.sqrt(kernel.size)
    assert kernel.std() == pytest.approx(spread, rel=6 / math.sqrt(2 * kernel.size))
    if name == "uniform_fan_in":
        assert np.abs(kernel).max() <= 1 / math.sqrt(300)
        assert 0 < bias.std() < 1 / math.sqrt(300)
    else:
        assert not bias.any()


@pytest.mark.slow
def test_a_convolution_s_fan_in_counts_its_window():
    kernel_init, bias_init = initializers("uniform_fan_in", 9 * 16)
    for init in (kernel_init, bias_init):
        draws = init(jax.random.key(0), (4000,), jnp.float32)
        assert 0.95 / 12 < np.abs(draws).max() <= 1 / 12
    layers = params_of(network="convolutional", hidden_sizes=(16, 64), initializer="uniform_fan_in")["encoder"]["trunk"]
    assert 0.95 / 12 < np.abs(layers["layers"][1]["kernel"]).max() <= 1 / 12


def test_the_activations_are_those_named():
    x = jnp.array([-2.0, 0.0, 3.0])
    np.testing.assert_allclose(ACTIVATIONS["leaky_relu"](x), [-0.4, 0, 3], rtol=1e-6)
    np.testing.assert_allclose(ACTIVATIONS["relu"](x), [0, 0, 3])
    np.testing.assert_allclose(ACTIVATIONS["tanh"](x), np.tanh(x), rtol=1e-6)
    np.testing.assert_allclose(ACTIVATIONS["softplus"](x), np.log1p(np.exp(x)), rtol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_stands_after_every_hidden_layer(activation):
    architecture = Architecture(ModelConfig(latent_size=2, hidden_sizes=(5,), activation=activation), (4,))
    params, z = params_of((4,), latent_size=2, hidden_sizes=(5,)), jnp.array([0.3, -1.0])

    @jax.jit
    def both(params):
        first, head = params["decoder"]["trunk"]["layers"][0], params["decoder"]["head"]
        expected = ACTIVATIONS[activation](z @ first["kernel"]) @ head["kernel"]
        return architecture.bind(params).decode(z), expected

    decoded, expected = both(params)
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-6)


def test_the_second_head_gives_log_variances_or_logits_of_scales():
    given = jnp.array([math.log(4), -80.0, 80.0, 0.0])
    assert jnp.exp(LOG_SCALES["log_variance"](given))[0] == pytest.approx(2, rel=1e-6)
    np.testing.assert_allclose(jnp.exp(LOG_SCALES["sigmoid"](given)), nnx.sigmoid(given), rtol=1e-5)


def test_images_have_two_or_three_axes_in_a_convolution():
    assert as_volume((28, 27)) == (28, 27, 1)
    assert as_volume([7, 5, 3]) == (7, 5, 3)
    assert halved((7, 5, 3), 2) == (2, 2)
    message = "images [height, width] or [height, width, channels], got shape (784,): choose network mlp"
    with pytest.raises(ValueError, match=re.escape(message)):
        as_volume((784,))


def test_a_convolution_sees_the_image_and_not_its_rows_in_one():
    """An image that is shifted by four pixels has the features of the first, shifted by one."""
    config = ModelConfig(network="convolutional", latent_size=2, hidden_sizes=(4, 4))
    architecture = Architecture(config, (16, 16))
    trunk = architecture.bind(initial(architecture)).encoder.trunk
    image = np.zeros((16, 16), np.float32)
    image[4:7, 4:7] = np.random.default_rng(1).uniform(size=(3, 3))
    of_image = jax.jit(lambda image: trunk(image.ravel()).reshape(4, 4, 4))
    features = [np.asarray(of_image(each)) for each in (image, np.roll(image, 4, axis=1))]
    assert np.abs(features[0]).max() > 0.01
    np.testing.assert_allclose(np.roll(features[0], 1, axis=1), features[1], atol=1e-6)


X, KERNEL = (jax.random.normal(jax.random.key(number), shape) for number, shape in enumerate([(6, 40), (40, 3)]))


def products(x, kernel):
    return bfloat16_product(x, kernel, DIMENSIONS)


def rounded(array):
    return np.asarray(jnp.asarray(array).astype(jnp.bfloat16), np.float64)


def test_a_bfloat16_product_rounds_its_operands_and_sums_in_float32():
    got = products(X, KERNEL)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, rounded(X) @ rounded(KERNEL), rtol=1e-5, atol=1e-5)
    assert not np.allclose(got, X @ KERNEL, rtol=1e-5, atol=1e-5)


def test_its_gradients_are_a_bfloat16_product_and_a_float32_one():
    upstream = jax.random.normal(jax.random.key(2), (6, 3))
    gradient_x, gradient_kernel = jax.jit(lambda upstream: jax.vjp(products, X, KERNEL)[1](upstream))(upstream)
    of_x, of_kernel = rounded(upstream) @ rounded(KERNEL).T, np.asarray(X, float).T @ np.asarray(upstream, float)
    np.testing.assert_allclose(gradient_x, of_x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient_kernel, of_kernel, rtol=1e-5, atol=1e-5)
    assert gradient_x.dtype == gradient_kernel.dtype == jnp.float32


def test_its_products_are_of_bfloat16_operands_except_for_the_kernel_s_gradient():
    jaxpr = jax.make_jaxpr(lambda x, kernel: jax.vjp(products, x, kernel)[1](jnp.ones((6, 3))))(X, KERNEL)
    found = [each for each in jaxpr.eqns if each.primitive.name == "dot_general"]
    in_float32 = [each for each in found if each.invars[0].aval.dtype == jnp.float32]
    assert [each.params["precision"] for each in in_float32] == [(lax.Precision.HIGHEST, lax.Precision.HIGHEST)]
    assert in_float32[0].outvars[0].aval.shape in (KERNEL.shape, KERNEL.shape[::-1])
    rest = [each for each in found if each not in in_float32]
    assert rest
    for each in rest:
        assert {operand.aval.dtype for operand in each.invars} == {jnp.dtype(jnp.bfloat16)}
        # The sum is in float32, not rounded to bfloat16 on its way.
        assert each.outvars[0].aval.dtype == jnp.float32


def test_its_gradients_are_the_same_under_vmap_over_examples_and_over_seeds():
    def gradients(product, x, kernel):
        return jax.grad(lambda *operands: (product(*operands) ** 2).sum(), argnums=(0, 1))(x, kernel)

    def by_example(x, kernel):
        return jax.vmap(lambda row: bfloat16_product(row, kernel, (((0,), (0,)), ((), ()))))(x)

    kernels = jnp.stack([KERNEL, -2 * KERNEL])
    of_kernel = jax.jit(partial(gradients, products))
    expected = jax.tree.map(lambda *each: np.stack(each), *(of_kernel(X, kernel) for kernel in kernels))
    for product in (products, by_example):
        got = jax.jit(jax.vmap(partial(gradients, product), in_axes=(None, 0)))(X, kernels)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2**-7, atol=1e-4)


def test_a_float32_product_asks_for_float32_on_every_device():
    def gradients(x, kernel):
        return jax.vjp(lambda *operands: float32_product(*operands, DIMENSIONS), x, kernel)[1](jnp.ones((6, 3)))

    products = [each for each in jax.make_jaxpr(gradients)(X, KERNEL).eqns if each.primitive.name == "dot_general"]
    highest = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
    assert [each.params["precision"] for each in products] == [highest] * len(products)
    assert len(products) >= 2
