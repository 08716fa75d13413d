import math
from functools import cache, partial
from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.tree_util import Partial
from scipy.special import logsumexp
from scipy.stats import kstest

from monte_carlo import Z, assert_unbiased, is_biased
from vae_jax import distributions
from vae_jax.inference import laplace
from vae_jax.inference.diagnostics import (
    all_at_once,
    calibration,
    compare_moments,
    fit_tail,
    known_moments,
    moments_of_chains,
    moments_of_draws,
    one_by_one,
    pareto_smoothed,
    reliability_threshold,
    tail_length,
)
from vae_jax.inference.diagnostics.rank_tests import (
    anderson_darling_survival,
    holm_adjusted,
    symmetry_p_value,
    uniformity_p_value,
)
from vae_jax.inference.diagnostics.scalar_names import scalar_names

smooth = jax.jit(pareto_smoothed)
smooth_each = jax.jit(jax.vmap(pareto_smoothed))


def smoothed_naively(log_weights):
    """Shape and smoothed weights by the published formulas, on the weights themselves."""
    weights = np.exp(log_weights - log_weights.max())
    length = min(len(weights) // 5, math.floor(3 * math.sqrt(len(weights))))
    order = np.argsort(weights)
    tail, cutoff = order[-length:], weights[order[-length - 1]]
    excess = weights[tail] - cutoff
    num_rates = 30 + math.floor(math.sqrt(length))
    grid = np.arange(1, num_rates + 1)
    rates = 1 / excess[-1] + (1 - np.sqrt(num_rates / (grid - 0.5))) / (3 * excess[math.floor(length / 4 + 0.5) - 1])
    shapes = np.array([np.mean(np.log1p(-rate * excess)) for rate in rates])
    log_likelihood = length * (np.log(-rates / shapes) - shapes - 1)
    rate = np.exp(log_likelihood - logsumexp(log_likelihood)) @ rates
    shape = np.mean(np.log1p(-rate * excess))
    scale, shape = -shape / rate, (length * shape + 5) / (length + 10)
    places = (np.arange(length) + 0.5) / length
    weights[tail] = np.minimum(cutoff + scale * ((1 - places) ** -shape - 1) / shape, 1)
    return shape, weights / weights.sum()


@partial(jax.jit, static_argnames=("k", "shape"))
def pareto_log_weights(key, k, shape):
    """Logarithms of weights with P(w > x) = x^(-1 / k), and for a negative k of some that end at one."""
    exponential = jax.random.exponential(key, shape, jnp.float64)
    return k * exponential if k > 0 else jnp.log1p(-jnp.exp(k * exponential) * (1 - 1e-12))


@pytest.mark.parametrize("num_samples", [25, 60, 225, 226, 3000])
@pytest.mark.parametrize("k", [-0.5, 0.3, 0.7, 1.5])
def test_shape_and_weights_are_those_of_the_published_formulas(k, num_samples, float64):
    raw = pareto_log_weights(jax.random.key(num_samples), k, (num_samples,))
    smoothed = smooth(raw)
    shape, weights = smoothed_naively(np.asarray(raw))
    np.testing.assert_allclose(smoothed.k, shape, rtol=1e-10)
    np.testing.assert_allclose(np.exp(smoothed.log_weights), weights, rtol=1e-10)
    np.testing.assert_allclose(smoothed.effective_sample_size, 1 / np.sum(weights**2), rtol=1e-10)


@pytest.mark.parametrize("k", [0.7, *(pytest.param(k, marks=pytest.mark.slow) for k in (-0.2, 0.3, 1.2))])
def test_the_shape_of_a_pareto_tail_is_found_with_the_error_of_maximum_likelihood(k, float64):
    num_samples = 10_000
    raw = pareto_log_weights(jax.random.key(1), k, (400, num_samples))
    found = np.asarray(smooth_each(raw).k)
    length = tail_length(num_samples)
    without_prior = (found * (length + 10) - 5) / length
    assert abs(without_prior.mean() - k) < 0.02
    error = np.sqrt((1 + k) ** 2 / length)
    np.testing.assert_allclose(without_prior.std(), error, rtol=0.2)


@pytest.mark.parametrize(("scale", "is_reliable"), [(0.35, False), (0.7, True)])
def test_a_gaussian_that_is_too_narrow_in_two_dimensions_has_a_pareto_tail(scale, is_reliable, float64):
    """log w = const + (1 - scale^2) u / 2, where u, the squared radius over scale^2, is exponential with mean 2."""
    num_samples, exact = 10_000, 1 - scale**2

    @jax.jit
    def log_weights(scale):
        q = dist.Normal(jnp.zeros(2), jnp.full(2, scale)).to_event(1)
        target = dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1)
        draws = distributions.sample(q, jax.random.key(2), 30 * num_samples)
        return jax.vmap(target.log_prob)(draws) - jax.vmap(q.log_prob)(draws)

    raw = log_weights(scale)
    k = np.asarray(smooth_each(raw.reshape(30, num_samples)).k)
    length = tail_length(num_samples)
    without_prior = (k * (length + 10) - 5) / length
    assert_unbiased(without_prior.mean(), without_prior.std() / math.sqrt(len(k)), exact, resolution=0.4)
    assert (k.mean() < reliability_threshold(num_samples)) == is_reliable


def test_lognormal_weights_are_judged_by_the_tail_that_the_samples_show(float64):
    noise = jax.random.normal(jax.random.key(3), (20, 4000), jnp.float64)
    threshold = reliability_threshold(4000)
    assert (smooth_each(0.5 * noise).k < threshold).all()
    assert (smooth_each(4.0 * noise).k > threshold).all()


def test_smoothing_lowers_the_error_of_a_heavy_tailed_estimate(float64):
    """The mean of u under the target of the too narrow Gaussian, where u has the mean 2 / scale^2."""
    scale = math.sqrt(0.3)
    u = 2 * jax.random.exponential(jax.random.key(4), (1000, 1000), jnp.float64)
    raw = 0.5 * (1 - scale**2) * u
    estimates = [(jax.nn.softmax(raw) * u).sum(1), (jnp.exp(smooth_each(raw).log_weights) * u).sum(1)]
    plain, smoothed = (np.mean((np.asarray(each) - 2 / scale**2) ** 2) for each in estimates)
    assert smoothed < 0.95 * plain


def test_weights_keep_their_order_and_their_bulk(float64):
    raw = 0.9 * jax.random.exponential(jax.random.key(5), (500,), jnp.float64)
    smoothed = smooth(raw)
    order = np.argsort(raw)
    assert np.all(np.diff(np.asarray(smoothed.log_weights)[order]) >= 0)
    np.testing.assert_allclose(jax.nn.logsumexp(smoothed.log_weights), 0, atol=1e-12)
    bulk = order[: -tail_length(500)]
    offsets = np.asarray(smoothed.log_weights - raw)[bulk]
    np.testing.assert_allclose(offsets, offsets[0], atol=1e-12)
    assert smoothed.log_weights.max() - offsets[0] <= raw.max() + 1e-12
    moved = smooth(raw[::-1] + 1000)
    np.testing.assert_allclose(moved.log_weights, smoothed.log_weights[::-1], atol=1e-9)
    np.testing.assert_allclose(moved.k, smoothed.k, atol=1e-9)


@pytest.mark.parametrize("compute", [smooth, pytest.param(pareto_smoothed, marks=pytest.mark.slow)])
def test_compiled_and_vmapped_it_is_the_same(compute):
    raw = jax.random.normal(jax.random.key(6), (2, 400))
    for field, alone in zip(smooth_each(raw), compute(raw[1]), strict=True):
        np.testing.assert_allclose(field[1], alone, rtol=1e-4, atol=1e-5)


def test_the_top_weights_are_enough_for_the_shape():
    generator = np.random.default_rng(7)
    raw = generator.normal(size=400).astype(np.float32)
    k = smooth(raw).k
    for kept in (tail_length(400) + 1, 100, 400):
        tail = jax.jit(partial(fit_tail, num_samples=400))(generator.permutation(np.sort(raw)[-kept:]))
        np.testing.assert_allclose(tail.k, k, rtol=1e-4)
        np.testing.assert_allclose(tail.log_cutoff, np.sort(raw)[-tail_length(400) - 1])


def test_float32_is_enough_for_weights_many_orders_of_magnitude_apart():
    raw = jnp.linspace(0, 10_000, 100) ** 1.5
    smoothed = smooth(raw)
    assert 100 < smoothed.k < jnp.inf
    assert smoothed.effective_sample_size == pytest.approx(1)
    assert not jnp.isnan(smoothed.log_weights).any()


def with_first(value, others, size=100):
    return jnp.full(size, float(others)).at[0].set(value)


@pytest.mark.parametrize(
    ("raw", "k", "size"),
    [
        (jnp.zeros(100), -jnp.inf, 100),
        (jnp.arange(24.0), jnp.inf, None),
        (jnp.zeros(1), jnp.inf, 1),
        (with_first(0, -jnp.inf), jnp.inf, 1),
        (with_first(50, 0), jnp.inf, 1),
        (with_first(-jnp.inf, 0), -jnp.inf, 99),
        (jnp.full(100, -jnp.inf), jnp.nan, jnp.nan),
        (jnp.full(10, -jnp.inf), jnp.nan, jnp.nan),
        (with_first(jnp.nan, 0), jnp.nan, jnp.nan),
        (with_first(jnp.inf, 0), jnp.nan, jnp.nan),
    ],
)
def test_weights_without_a_tail_to_fit(raw, k, size):
    smoothed = smooth(raw)
    np.testing.assert_equal(float(smoothed.k), k)
    as_they_were = raw - jax.nn.logsumexp(raw) if jnp.isfinite(raw.max()) else jnp.full_like(raw, jnp.nan)
    np.testing.assert_allclose(smoothed.log_weights, as_they_were, atol=1e-6)
    if size is not None:
        np.testing.assert_allclose(smoothed.effective_sample_size, size, rtol=1e-5)


def test_weights_of_zero_below_the_tail_change_nothing(float64):
    raw = jax.random.normal(jax.random.key(9), (1000,), jnp.float64)
    bottom = jnp.argsort(raw)[:800]
    smoothed = smooth(raw.at[bottom].set(-jnp.inf))
    np.testing.assert_allclose(smoothed.k, smooth(raw).k, rtol=1e-12)
    assert jnp.isneginf(smoothed.log_weights[bottom]).all()


def test_the_threshold_grows_with_the_samples_up_to_its_limit():
    np.testing.assert_allclose(reliability_threshold(100), 0.5)
    np.testing.assert_allclose(reliability_threshold(1000), 2 / 3)
    assert reliability_threshold(10**7) == 0.7
    assert reliability_threshold(1) == -math.inf


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: pareto_smoothed(jnp.zeros(0)), "zero-size|num_samples must be at least 1"),
        (lambda: fit_tail(jnp.zeros(10), 400), "must be the 61 largest of 400, got 10: keep"),
        (lambda: fit_tail(jnp.zeros(500), 400), "at least the number of log weights given, got 400 for 500: count"),
        (lambda: reliability_threshold(0), "num_samples must be at least 1, got 0: raise it"),
    ],
)
def test_misuse_of_the_weights_is_named(misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse()


@pytest.mark.parametrize("size", [1, 2, 7, 10])
def test_the_symmetry_test_is_exact(size):
    """Every pattern of signs is as likely: the p-value is the share of patterns that are as extreme."""
    patterns = np.array(list(product((-1, 1), repeat=size)))
    excursions = np.abs(np.cumsum(patterns, axis=1)).max(axis=1)
    sizes = np.linspace(0.45, 0.05, size)
    for pattern, excursion in list(zip(patterns, excursions, strict=True))[:: max(1, size**2 // 3)]:
        shuffled = np.random.default_rng(0).permutation(0.5 + pattern * sizes)
        np.testing.assert_allclose(symmetry_p_value(shuffled), np.mean(excursions >= excursion), atol=1e-12)


@pytest.mark.parametrize("num_rows", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_p_values_of_uniform_probabilities_are_uniform(num_rows):
    probabilities = np.random.default_rng(1).uniform(size=(num_rows, 50))
    for test in (symmetry_p_value, uniformity_p_value):
        p_values = np.array([test(row) for row in probabilities])
        for level in (0.3, 0.05, 0.01):
            rate, error = np.mean(p_values <= level), math.sqrt(level * (1 - level) / len(p_values))
            assert rate < level + Z * error
    # That of symmetry takes few values, this one all.
    assert kstest(p_values, "uniform").pvalue > 1e-6


def test_anderson_and_darling_s_critical_values():
    for statistic, level in ((1.933, 0.1), (2.492, 0.05), (3.0775, 0.025), (3.8781, 0.01)):
        np.testing.assert_allclose(anderson_darling_survival(statistic), level, rtol=0.02)
    np.testing.assert_allclose(anderson_darling_survival(8.001), anderson_darling_survival(7.999), rtol=0.03)


def test_p_values_of_probabilities_that_are_far_from_uniform():
    at_one_end = np.linspace(0.001, 0.01, 500)
    assert symmetry_p_value(at_one_end) == symmetry_p_value(1 - at_one_end) == pytest.approx(2.0**-498)
    assert uniformity_p_value(at_one_end) < 1e-100


def test_holm_s_correction():
    np.testing.assert_allclose(holm_adjusted(np.array([0.04, 0.01, 0.03, 0.9])), [0.09, 0.04, 0.09, 0.9])
    np.testing.assert_allclose(holm_adjusted(np.array([0.01, np.nan, 0.5])), [0.03, np.nan, 1.0])


NUM_DATA = 5
POSTERIOR_SCALE = (NUM_DATA + 1) ** -0.5
STRICT = 1e-6
"""Level at which one run raises no false alarm."""


def simulate_prior(key):
    first, second = jax.random.split(key)
    return {"loc": jax.random.normal(first, (2,)), "x": jax.random.normal(second)}


def simulate_data(latents, key):
    first, second = jax.random.split(key)
    noise = jax.random.normal(first, (NUM_DATA, 2))
    return latents["loc"][None] + noise, latents["x"] + jax.random.normal(second)


@cache
def infer_with(shift=0.0, width=1.0):
    """The posterior of two Gaussian means and of another one, the first two moved and stretched in its own units."""

    def infer(data, key):
        points, number = data
        loc = points.sum(axis=0) / (NUM_DATA + 1) + shift * POSTERIOR_SCALE
        return {
            "loc": dist.Normal(loc, jnp.full(2, width * POSTERIOR_SCALE)).to_event(1),
            "x": dist.Normal(number / 2, math.sqrt(0.5)),
        }

    return infer


def calibrate(infer, **options):
    options = {"num_replicates": 1000, "num_draws": 200, "level": STRICT} | options
    return calibration(simulate_prior, simulate_data, infer, jax.random.key(0), **options)


def test_exact_posteriors_are_calibrated():
    found = calibrate(infer_with(), num_replicates=4000)
    assert found.is_calibrated
    assert [parameter.name for parameter in found.parameters] == ["loc[0]", "loc[1]", "x"]
    assert found.probabilities.shape == (4000, 3)
    assert 0 < found.probabilities.min() < 0.01
    assert 0.99 < found.probabilities.max() < 1
    for parameter in found.parameters:
        assert_unbiased(parameter.shift, parameter.shift_se, 0, resolution=0.3)
        assert_unbiased(parameter.dispersion, parameter.dispersion_se, 1, resolution=0.2)


@pytest.mark.parametrize(("shift", "verdict"), [(0.4, "too high"), (-0.4, "too low")])
def test_a_shifted_posterior_fails_both_tests(shift, verdict):
    found = calibrate(infer_with(shift=shift))
    assert not found.is_calibrated
    assert [parameter.verdict for parameter in found.parameters] == [verdict, verdict, "no fault found"]
    for parameter in found.parameters[:2]:
        assert parameter.symmetry_p_value < STRICT
        assert parameter.uniformity_p_value < STRICT
        assert_unbiased(parameter.shift, parameter.shift_se, -shift, resolution=0.5)
        assert is_biased(parameter.shift, parameter.shift_se, 0)


@pytest.mark.parametrize(("width", "verdict"), [(0.6, "too narrow"), (1.6, "too wide")])
def test_a_wrong_width_is_symmetric_but_not_uniform(width, verdict):
    found = calibrate(infer_with(width=width))
    assert [parameter.verdict for parameter in found.parameters] == [verdict, verdict, "no fault found"]
    for parameter in found.parameters[:2]:
        assert parameter.symmetry_p_value > STRICT > parameter.uniformity_p_value
        assert_unbiased(parameter.dispersion, parameter.dispersion_se, 1 / width, resolution=0.6)


def test_a_shift_and_a_wrong_width_are_told_together():
    found = calibrate(infer_with(shift=0.5, width=0.6))
    assert found.parameters[0].verdict == "too high and too narrow"


def test_a_fault_of_neither_place_nor_width_is_misshapen():
    """Quantiles that are wrong in the middle only, with the mean and the variance of the normal scores right."""

    def infer(data, key):
        scale = math.sqrt(0.5)
        return dist.MixtureSameFamily(
            dist.Categorical(jnp.full(2, 0.5)),
            dist.Normal(data / 2 + 0.92 * scale * jnp.array([-1.0, 1.0]), 0.39 * scale * jnp.ones(2)),
        )

    def simulate_number(latents, key):
        return latents + jax.random.normal(key)

    def prior(key):
        return jax.random.normal(key)

    found = calibration(
        prior, simulate_number, infer, jax.random.key(0), num_replicates=2000, num_draws=200, level=0.001
    )
    (parameter,) = found.parameters
    assert parameter.name == "value"
    assert parameter.uniformity_p_value < STRICT
    assert parameter.symmetry_p_value > 1e-3


def log_likelihood(latents, data):
    return -0.5 * jnp.sum((data[1] - latents["x"]) ** 2)


def test_the_prior_passes_for_a_posterior_unless_the_likelihood_is_judged():
    def ignore_the_data(data, key):
        return {"loc": dist.Normal(jnp.zeros(2), jnp.ones(2)).to_event(1), "x": dist.Normal(0.0, 1.0)}

    assert calibrate(ignore_the_data).is_calibrated
    assert not calibrate(ignore_the_data, quantities=log_likelihood).is_calibrated
    assert calibrate(infer_with(), quantities=log_likelihood).is_calibrated


@pytest.mark.parametrize(("error", "is_calibrated"), [(0.0, True), (1.0, False)])
def test_discrete_latents_are_ranked_with_ties_broken_at_random(error, is_calibrated):
    def prior(key):
        return jax.random.bernoulli(key, 0.3).astype(jnp.int32)

    def data(latents, key):
        return latents + jax.random.normal(key)

    def infer(datum, key):
        return dist.Bernoulli(logits=math.log(0.3 / 0.7) + datum - 0.5 + error)

    with jax.numpy_dtype_promotion("standard"):
        found = calibration(prior, data, infer, jax.random.key(0), num_replicates=4000, num_draws=50, level=STRICT)
    assert found.is_calibrated == is_calibrated


def test_a_call_with_the_same_functions_compiles_once_and_batches_change_nothing():
    options = {"num_replicates": 50, "num_draws": 20}
    infer = chex.assert_max_traces(infer_with(), n=1)
    first, second = calibrate(infer, **options), calibrate(infer, **options)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    batched = calibrate(infer_with(), **options, over_replicates=partial(all_at_once, batch_size=7))
    np.testing.assert_allclose(batched.probabilities, first.probabilities, atol=1e-6)


def test_other_posteriors_bring_their_own_draws():
    """Here the posterior is its own draws, by resampling."""

    def infer(data, key):
        return distributions.sample(infer_with()(data, key), key, 300)

    def draw(posterior, key, num_draws):
        return jax.tree.map(lambda leaf: leaf[:num_draws], posterior)

    assert calibrate(infer, draw=draw).is_calibrated


def log_joint(data, latents):
    points, number = data
    squares = jnp.sum((points - latents["loc"][None]) ** 2) + (number - latents["x"]) ** 2
    return -0.5 * (squares + jnp.sum(latents["loc"] ** 2) + latents["x"] ** 2)


def gaussian_by_laplace(data, key):
    """Exact, as the density is a Gaussian."""
    return laplace(Partial(log_joint, data), {"loc": jnp.zeros(2), "x": jnp.zeros(())})


def draw_from_laplace(posterior, key, num_draws):
    return posterior.sample(key, num_draws)


def calibrate_one_by_one(infer, **options):
    options = {"num_replicates": 20, "num_draws": 50} | options
    return calibrate(infer, over_replicates=one_by_one, **options)


@pytest.mark.slow
def test_one_by_one_the_probabilities_are_the_same():
    alone = calibrate_one_by_one(infer_with())
    together = calibrate(infer_with(), num_replicates=20, num_draws=50)
    np.testing.assert_allclose(alone.probabilities, together.probabilities, atol=1e-6)


@pytest.mark.slow
def test_an_inference_that_cannot_be_traced_is_calibrated_one_by_one():
    found = calibrate_one_by_one(gaussian_by_laplace, draw=draw_from_laplace)
    assert found.is_calibrated
    with pytest.raises(TypeError, match="laplace must be called outside of jit, vmap and grad"):
        calibrate(gaussian_by_laplace, draw=draw_from_laplace)


def test_a_failed_inference_is_said_and_spoils_no_other_parameter():
    def infer(data, key):
        posterior = infer_with()(data, key)
        return posterior | {"x": dist.Normal(jnp.where(data[1] > 2, jnp.nan, data[1] / 2), math.sqrt(0.5))}

    found = calibrate(infer)
    assert [parameter.verdict for parameter in found.parameters] == ["no fault found"] * 2 + ["not finite"]
    assert not found.is_calibrated


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_replicates": 5}, "num_replicates must be at least 20, got 5: raise it"),
        ({"num_draws": 0}, "num_draws must be at least 1, got 0: raise it"),
        ({"level": 0.0}, "level must be between 0 and 1, got 0.0: 0.05 is usual"),
        ({"over_replicates": partial(all_at_once, batch_size=0)}, "batch_size must be at least 1, got 0: raise it"),
    ],
)
def test_misuse_of_calibration_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        calibrate(infer_with(), **options)
    if "over_replicates" not in options:
        with pytest.raises(ValueError, match=message):
            calibrate_one_by_one(infer_with(), **options)


def test_posteriors_of_other_latents_are_refused():
    with pytest.raises(TypeError, match=r"infer must return a posterior of .* as simulate_prior draws, got"):
        calibrate(lambda data, key: dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=r"200 draws of the posterior's loc must have the shape \(200, 2\), got"):
        calibrate(lambda data, key: {"loc": dist.Normal(0.0, 1.0), "x": dist.Normal(0.0, 1.0)})


def test_names_of_single_numbers():
    tree = {"loc": np.zeros(2), "net": {"w": np.zeros((1, 2)), "b": 0.0}}
    assert scalar_names(tree) == ("loc[0]", "loc[1]", "net.b", "net.w[0, 0]", "net.w[0, 1]")
    assert scalar_names(np.zeros(1)) == ("value[0]",)


ROOT = np.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 2.0]])
COVARIANCE = ROOT @ ROOT.T


def skewed(generator, shape):
    """Draws with the mean (0, 1, 2) and this covariance, whose noise is skewed."""
    noise = generator.gamma(4, size=(*shape, 3)) / 2 - 2
    return noise @ ROOT.T + np.arange(3)


def pytree(values):
    return {"loc": values[..., :2], "scale": values[..., 2]}


def exact():
    return known_moments(pytree(np.arange(3.0)), COVARIANCE)


def test_moments_that_are_known():
    moments = exact()
    assert moments.names == ("loc[0]", "loc[1]", "scale")
    np.testing.assert_allclose(moments.mean, [0, 1, 2])
    np.testing.assert_allclose(moments.std, np.sqrt(np.diagonal(COVARIANCE)))
    np.testing.assert_allclose(moments.correlation, COVARIANCE / np.outer(moments.std, moments.std))


def squared_z_scores(comparisons):
    """Their mean and its standard error for means, standard deviations and correlations."""
    scores = [
        [
            [row.mean_z for row in each.parameters],
            [row.std_z for row in each.parameters],
            [pair.z_score for pair in each.correlations],
        ]
        for each in comparisons
    ]
    squares = np.square(scores)
    return squares.mean(axis=(0, 2)), squares.mean(axis=2).std(axis=0) / math.sqrt(len(squares))


@pytest.mark.parametrize(
    ("num_repeats", "largest_error"), [(300, 0.11), pytest.param(1000, 0.06, marks=pytest.mark.slow)]
)
def test_standard_errors_of_independent_draws_are_right(num_repeats, largest_error):
    generator = np.random.default_rng(2)
    found = [moments_of_draws(pytree(skewed(generator, (2000,)))) for _ in range(num_repeats)]
    mean, error = squared_z_scores([compare_moments(each, exact()) for each in found])
    assert np.all(np.abs(mean - 1) < Z * error + 0.03), mean
    assert np.all(error < largest_error)


def autocorrelated(generator, num_chains, num_draws):
    """Chains of skewed draws in which each takes 0.8 of the last one."""
    noise = skewed(generator, (num_chains, num_draws)) - np.arange(3)
    draws = noise.copy()
    for place in range(1, num_draws):
        draws[:, place] = 0.8 * draws[:, place - 1] + 0.6 * noise[:, place]
    return draws + np.arange(3)


@pytest.mark.slow
def test_standard_errors_of_chains_allow_for_their_autocorrelation():
    generator = np.random.default_rng(3)
    chains, taken_for_independent = [], []
    for _ in range(100):
        draws = autocorrelated(generator, 4, 500)
        chains.append(compare_moments(moments_of_chains(pytree(draws)), exact()))
        flat = moments_of_draws(pytree(draws.reshape(-1, 3)))
        taken_for_independent.append(compare_moments(flat, exact()))
    mean, error = squared_z_scores(chains)
    assert np.all(np.abs(mean - 1) < Z * error + 0.1), mean
    wrong, wrong_error = squared_z_scores(taken_for_independent)
    assert np.all(wrong - Z * wrong_error > 1.2), wrong


def test_the_best_independent_gaussian_misses_what_is_known():
    """Its variances are one over the diagonal of the precision, and it has no correlations."""
    variances = 1 / np.diagonal(np.linalg.inv(COVARIANCE))
    shift = np.array([0.5, 0, 0])
    generator = np.random.default_rng(4)
    draws = generator.normal(size=(20_000, 3)) * np.sqrt(variances) + np.arange(3) + shift
    found = compare_moments(moments_of_draws(pytree(draws)), exact())
    std = np.sqrt(np.diagonal(COVARIANCE))
    for row, moved, ratio in zip(found.parameters, shift / std, np.sqrt(variances) / std, strict=True):
        assert_unbiased(row.mean, row.mean_se, moved, resolution=0.1)
        assert_unbiased(row.std, row.std_se, ratio - 1, resolution=0.1)
    assert found.parameters[0].mean_z > Z > abs(found.parameters[1].mean_z)
    worst = found.correlations[0]
    assert worst.names == ("loc[0]", "loc[1]")
    np.testing.assert_allclose(worst.reference, COVARIANCE[0, 1] / (std[0] * std[1]))
    assert_unbiased(worst.difference, worst.difference_se, -worst.reference, resolution=0.1)


def test_exact_against_exact_has_no_error():
    moved = exact()._replace(mean=exact().mean + exact().std)
    found = compare_moments(moved, exact())
    np.testing.assert_allclose([row.mean for row in found.parameters], 1)
    assert all(row.mean_se == row.std_se == 0 and math.isnan(row.mean_z) for row in found.parameters)


def test_what_does_not_vary_is_allowed_in_the_approximation_only():
    constant = moments_of_draws({"loc": np.ones((200, 2)), "scale": np.random.default_rng(5).normal(size=200)})
    np.testing.assert_array_equal(constant.std[:2], 0)
    np.testing.assert_array_equal(constant.mean_se[:2], 0)
    assert compare_moments(constant, exact()).parameters[0].std == -1
    with pytest.raises(ValueError, match=r"standard deviation of loc\[0\] must be positive and finite, got 0.0: leave"):
        compare_moments(exact(), constant)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: moments_of_draws({"a": np.zeros(10)}), "draws must be at least 100, got 10: draw more"),
        (lambda: moments_of_draws({"a": np.zeros(100), "b": np.zeros(200)}), r"arrays \[S, ...\] of one number of"),
        (lambda: moments_of_chains({"a": np.zeros(100)}), r"draws must be arrays \[C, S, ...\]"),
        (lambda: moments_of_draws({"a": np.full(100, np.inf)}), "draws of a must be finite, got inf: see why"),
        (lambda: known_moments(np.zeros(2), np.eye(3)), r"covariance must be 2 by 2, got \(3, 3\): match the mean"),
        (lambda: known_moments(np.zeros(1), -np.eye(1)), "variances must not be negative, got -1.0: correct"),
        (lambda: compare_moments(exact(), known_moments(np.zeros(1), np.eye(1))), r"parameters value\[0\], got loc"),
    ],
)
def test_misuse_of_moments_is_named(misuse, message):
    with pytest.raises(ValueError, match=message):
        misuse()
