import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.integrate import quad

from monte_carlo import assert_unbiased
from vae_jax.vae.models.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Gaussian,
    GreyBernoulli,
)

LOGITS = np.array([-1e4, -700.0, -90.0, -3.0, -0.51, -0.49, -1e-3, -1e-7, 0.0, 1e-7, 1e-3, 0.49, 0.51, 3, 90, 700, 1e4])
PIXELS = np.linspace(0, 1, len(LOGITS))
LEVELS = np.round(PIXELS * 255) / 255

CONTINUOUS_LOG_PROB = jax.jit(ContinuousBernoulli().log_prob)
CONTINUOUS_MEAN = jax.jit(ContinuousBernoulli().mean)
CONTINUOUS_SAMPLE = jax.jit(ContinuousBernoulli().sample)


def likelihood(name):
    return LIKELIHOODS[name](log_scale=np.log(0.1)) if name == "gaussian" else LIKELIHOODS[name]()


def outputs_like(name, logits):
    """Outputs at the logits given; of the categorical likelihood, a row of levels for each."""
    if name != "categorical":
        return jnp.asarray(logits)
    return jnp.asarray(logits)[:, None] * jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 256)))


def test_bernoulli_matches_numpyro(float64):
    x = np.arange(len(LOGITS)) % 2.0
    with jax.numpy_rank_promotion("allow"):
        expected = dist.BernoulliLogits(LOGITS).to_event(1).log_prob(x)
    assert Bernoulli().log_prob(jnp.asarray(LOGITS), jnp.asarray(x)) == pytest.approx(float(expected), rel=1e-14)


def test_grey_bernoulli_is_the_cross_entropy(float64):
    logits = np.linspace(-5, 5, len(PIXELS))
    probability = 1 / (1 + np.exp(-logits))
    expected = np.sum(PIXELS * np.log(probability) + (1 - PIXELS) * np.log1p(-probability))
    assert GreyBernoulli().log_prob(jnp.asarray(logits), jnp.asarray(PIXELS)) == pytest.approx(expected, rel=1e-13)


def test_gaussian_matches_scipy(float64):
    locs = np.linspace(-2, 2, len(PIXELS))
    expected = stats.norm(locs, 0.1).logpdf(PIXELS).sum()
    got = Gaussian(np.log(0.1)).log_prob(jnp.asarray(locs), jnp.asarray(PIXELS))
    assert got == pytest.approx(expected, rel=1e-13)


def test_categorical_matches_numpyro(float64):
    logits = outputs_like("categorical", LOGITS)
    labels = np.round(LEVELS * 255).astype(int)
    with jax.numpy_rank_promotion("allow"):
        expected = jax.jit(lambda logits: dist.CategoricalLogits(logits).to_event(1).log_prob(labels))(logits)
    got = jax.jit(Categorical().log_prob)(logits, jnp.asarray(LEVELS))
    assert got == pytest.approx(float(expected), rel=1e-13)


def test_each_level_of_a_float32_pixel_is_found_again():
    levels = jnp.arange(256, dtype=jnp.uint8)
    logits = jnp.where(jnp.eye(256, dtype=bool), 0, -jnp.inf)
    assert Categorical().log_prob(logits, levels.astype(jnp.float32) / 255) == 0


@pytest.mark.parametrize(
    "logit", [-1e4, -50.0, -3.0, -0.5001, -0.4999, -0.01, -1e-5, 0.0, 1e-9, 0.3, 0.5, 2.0, 40.0, 1e4]
)
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(float64, logit):
    width = min(1, 60 / max(abs(logit), 1e-9))
    ends = (1 - width, 1) if logit > 0 else (0, width)
    outputs = jnp.array([logit])

    def density(x):
        return float(np.exp(CONTINUOUS_LOG_PROB(outputs, jnp.array([x]))))

    assert quad(density, *ends)[0] == pytest.approx(1, rel=1e-9)
    mean = quad(lambda x: (x if logit <= 0 else 1 - x) * density(x), *ends)[0]
    got = float(CONTINUOUS_MEAN(outputs)[0])
    assert (got if logit <= 0 else 1 - got) == pytest.approx(mean, rel=1e-8)


def test_continuous_bernoulli_matches_its_published_constant(float64):
    logits = np.concatenate([np.linspace(-9, -0.6, 9), np.linspace(0.6, 9, 9)])
    lam, x = 1 / (1 + np.exp(-logits)), np.linspace(0, 1, 18)
    constant = 2 * np.arctanh(1 - 2 * lam) / (1 - 2 * lam)
    expected = np.sum(x * np.log(lam) + (1 - x) * np.log1p(-lam) + np.log(constant))
    got = CONTINUOUS_LOG_PROB(jnp.asarray(logits), jnp.asarray(x))
    assert got == pytest.approx(expected, rel=1e-10)
    mean = lam / (2 * lam - 1) + 1 / (2 * np.arctanh(1 - 2 * lam))
    np.testing.assert_allclose(CONTINUOUS_MEAN(jnp.asarray(logits)), mean, rtol=1e-10)


def test_continuous_bernoulli_is_smooth_where_the_series_ends(float64):
    below, above = jnp.array([np.nextafter(0.5, 0)]), jnp.array([0.5])
    x = jnp.array([0.2])
    functions = [ContinuousBernoulli().mean, jax.jacobian(ContinuousBernoulli().mean)]
    functions += [partial(ContinuousBernoulli().log_prob, x=x), jax.grad(partial(ContinuousBernoulli().log_prob, x=x))]
    for function in functions:
        compiled = jax.jit(function)
        np.testing.assert_allclose(compiled(below), compiled(above), rtol=1e-13)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_float32_has_float64_s_value_and_gradient(name):
    x = np.linspace(0, 1, 5)
    logits = np.repeat(LOGITS.astype(np.float32)[:, None], 5, axis=1)

    def values_and_gradients(dtype):
        outputs, pixels = jnp.stack([outputs_like(name, row) for row in logits]).astype(dtype), jnp.asarray(x, dtype)
        function = jax.vmap(jax.value_and_grad(likelihood(name).log_prob), in_axes=(0, None))
        return jax.device_get(jax.jit(function)(outputs, pixels))

    values, gradients = values_and_gradients(jnp.float32)
    with jax.enable_x64(True):
        exact_values, exact_gradients = values_and_gradients(jnp.float64)
    assert exact_gradients.dtype == np.float64
    np.testing.assert_allclose(values, exact_values, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(gradients, exact_gradients, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_means_have_finite_gradients_at_any_logit(name):
    of_sum = jax.jit(jax.grad(lambda outputs: likelihood(name).mean(outputs).sum()))
    assert np.isfinite(of_sum(outputs_like(name, LOGITS.astype(np.float32)))).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_average_to_the_mean(name):
    outputs = outputs_like(name, np.array([-8.0, -1.0, -0.2, 0.0, 1e-8, 0.2, 3.0], np.float32))
    kind = likelihood(name)
    draws = jax.jit(jax.vmap(kind.sample, in_axes=(None, 0)))(outputs, jax.random.split(jax.random.key(1), 5_000))
    draws = np.asarray(draws, float)
    assert_unbiased(draws.mean(0), draws.std(0) / np.sqrt(len(draws)), jax.jit(kind.mean)(outputs), resolution=0.1)
    if name != "gaussian":
        assert draws.min() >= 0
        assert draws.max() <= 1


@pytest.mark.parametrize("name", ["bernoulli", "grey_bernoulli", "continuous_bernoulli"])
def test_the_gradient_at_a_logit_of_zero_is_that_of_an_even_coin(name):
    gradient = jax.jit(jax.grad(likelihood(name).log_prob))(jnp.zeros(3), jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(gradient, [-0.5, 0.0, 0.5], atol=1e-7)


@pytest.mark.parametrize("logit", [-1e4, -30.0, -2.0, -1e-6, 0.0, 1e-6, 0.7, 1e4])
def test_continuous_bernoulli_draws_have_its_distribution(logit):
    draws = np.asarray(CONTINUOUS_SAMPLE(np.full(5000, logit, np.float32), jax.random.key(2)), float)
    slope = logit or 1e-12
    falling = -abs(slope)
    position = draws if slope < 0 else 1 - draws
    assert stats.kstest(position, lambda x: np.expm1(falling * x) / np.expm1(falling)).pvalue > 1e-6


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_sample_is_a_pixel_row_that_its_likelihood_accepts(name):
    kind, outputs = likelihood(name), outputs_like(name, np.linspace(-2, 2, 6, dtype=np.float32))

    @jax.jit
    def drawn(outputs):
        x = kind.sample(outputs, jax.random.key(0))
        return x, kind.mean(outputs), kind.log_prob(outputs, jnp.clip(x, 0, 1))

    x, mean, log_prob = drawn(outputs)
    assert x.shape == mean.shape == (6,)
    assert x.dtype == outputs.dtype
    assert np.isfinite(log_prob)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(783,), (784, 1), (1,), ()])
def test_pixels_of_another_shape_are_refused(name, shape):
    outputs = outputs_like(name, np.zeros(784, np.float32))
    message = f"x must have the shape of the decoder's outputs, (784,), got {shape}: reshape it"
    with pytest.raises(ValueError, match=re.escape(message)):
        likelihood(name).log_prob(outputs, jnp.zeros(shape))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.array([0, 255], np.uint8), "floats from 0 to 1, got uint8: divide levels by 255"),
        (np.array([0.0, 255.0], np.float32), "from 0 to 1, got values from 0 to 255: divide levels by 255"),
        (np.array([-1.0, 1.0], np.float32), "from 0 to 1, got values from -1 to 1"),
        (np.array([np.nan, 1.0], np.float32), "from 0 to 1, got values from nan"),
    ],
)
def test_pixels_outside_0_to_1_are_refused(name, pixels, said):
    with pytest.raises(ValueError, match=said):
        likelihood(name).log_prob(outputs_like(name, np.zeros(2, np.float32)), jnp.asarray(pixels))


def test_pixels_may_be_a_constant_of_a_compiled_function():
    x, white = jnp.array([0.0, 1.0]), jnp.array([0.0, 255.0])
    assert jax.jit(lambda outputs: Bernoulli().log_prob(outputs, x))(jnp.zeros(2)) == pytest.approx(-2 * np.log(2))
    with pytest.raises(ValueError, match="divide levels by 255"):
        jax.jit(lambda outputs: Bernoulli().log_prob(outputs, white))(jnp.zeros(2))


HALF_LOGITS = np.array([-6e4, -300, -12, -3, -0.51, -0.49, -1e-2, -6e-5, 0, 1e-7, 1e-3, 0.3, 0.51, 5, 20, 1e3, 6e4])


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("dtype", [jnp.float16, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)])
def test_half_precision_is_near_single(name, dtype):
    logits = HALF_LOGITS if "bernoulli" in name else np.linspace(0, 1, 17) ** 2
    outputs, x = outputs_like(name, logits).astype(dtype), jnp.asarray(np.round(PIXELS * 255) / 255, dtype)

    @jax.jit
    def of(outputs, x):
        model = likelihood(name)
        value, slope = jax.vjp(lambda outputs: model.log_prob(outputs, x), outputs)
        return value, slope(jnp.ones_like(value))[0], model.mean(outputs), model.sample(outputs, jax.random.key(0))

    half = of(outputs, x)
    single = of(outputs.astype(jnp.float32), x.astype(jnp.float32))
    resolution = float(jnp.finfo(dtype).eps)
    # The sum's terms are as large as the logits, and cancel.
    assert float(half[0]) == pytest.approx(float(single[0]), rel=8 * resolution, abs=resolution * np.abs(logits).sum())
    for found, exact in zip(half[1:3], single[1:3], strict=True):
        np.testing.assert_allclose(np.asarray(found, float), exact, rtol=8 * resolution, atol=8 * resolution)
    assert np.isfinite(np.asarray(half[3], float)).all()


def test_a_gaussian_in_half_precision_has_a_small_scale():
    outputs, x = jnp.array([0.5, 0.25], jnp.float16), jnp.array([0.5, 0.2506], jnp.float16)
    value = Gaussian(log_scale=jnp.asarray(-7.0, jnp.float16)).log_prob(outputs, x)
    exact = stats.norm.logpdf(np.asarray(x, float), np.asarray(outputs, float), np.exp(-7)).sum()
    assert value.dtype == jnp.float16
    assert float(value) == pytest.approx(exact, rel=2e-3)
