import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.sharding import Mesh
from scipy import stats

from monte_carlo import Z, assert_unbiased
from vae_jax import elbo, enumeration, gradient_replicates, gradient_statistics, sticking_the_landing, summarize
from vae_jax.statistics import mean_se

KEY = jax.random.key(0)
PARAMS = {"a": jnp.float32(2.0), "b": jnp.array([0.5, -1.0])}


def loss(params, key):
    """Skewed, so that the third moment matters in the merging of the fourth."""
    noise = jax.random.exponential(key, (3,))
    return params["a"] * noise[0] + (params["b"] * noise[1:]).sum() + 5.0


def by_hand(x):
    """The definitions, in float64."""
    x = np.asarray(x, float)
    number = len(x)
    variance = x.var(axis=0, ddof=1)
    fourth = ((x - x.mean(axis=0)) ** 4).mean(axis=0)
    variance_se = np.sqrt((fourth - variance**2 * (number - 3) / (number - 1)) / number)
    return {
        "mean": x.mean(axis=0),
        "mean_se": np.sqrt(variance / number),
        "variance": variance,
        "variance_se": variance_se,
        "std": np.sqrt(variance),
        "std_se": variance_se / (2 * np.sqrt(variance)),
        "signal_to_noise": np.abs(x.mean(axis=0)) / np.sqrt(variance),
    }


@pytest.fixture
def small_groups(monkeypatch):
    """Every chunk is summarized by itself, so that the moments are merged. Needs a loss that is not compiled yet."""
    monkeypatch.setattr("vae_jax.replicates.GROUP_ELEMENTS", 1)


@pytest.fixture
def nan_check():
    """JAX's own check: a program whose result has a NaN fails."""
    with jax.debug_nans(True):
        yield


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 1000])
def test_fields_are_their_definitions(chunk_size):
    def fresh(params, key):
        return loss(params, key)

    values, gradients = gradient_replicates(loss, PARAMS, KEY, 200)
    result = gradient_statistics(fresh, PARAMS, KEY, 200, chunk_size=chunk_size)
    for field, expected in by_hand(values).items():
        np.testing.assert_allclose(getattr(result.value, field), expected, rtol=2e-4, err_msg=field)
    for name in PARAMS:
        for field, expected in by_hand(gradients[name]).items():
            np.testing.assert_allclose(getattr(result.gradient, field)[name], expected, rtol=2e-4, err_msg=field)
    assert result.value.num_replicates == 200


def test_summarize_agrees_with_the_pass():
    result = gradient_statistics(loss, PARAMS, KEY, 300, chunk_size=50, reference=PARAMS)
    again = summarize(gradient_replicates(loss, PARAMS, KEY, 300)[1], reference=PARAMS)
    chex.assert_trees_all_close(result.gradient, again, rtol=1e-4)


@pytest.mark.parametrize("num_devices", [1, 2, 4])
def test_devices_do_not_change_the_statistics(num_devices):
    mesh = Mesh(np.asarray(jax.devices()[:num_devices]), ("replicates",))
    alone = gradient_statistics(loss, PARAMS, KEY, 1001)
    sharded = gradient_statistics(loss, PARAMS, KEY, 1001, mesh=mesh)
    for field in ("mean", "std", "variance", "tail_index"):
        for part in ("value", "gradient"):
            one, other = (getattr(getattr(result, part), field) for result in (alone, sharded))
            chex.assert_trees_all_close(one, other, rtol=1e-6 if field != "tail_index" else 1e-4)


@pytest.mark.usefixtures("small_groups")
def test_merging_keeps_a_small_variance_beside_a_large_mean():
    def offset(params, key):
        return params + 1e-3 * jax.random.normal(key)

    std = gradient_statistics(offset, jnp.float32(10.0), KEY, 10_000, chunk_size=10).value.std
    assert std == pytest.approx(1e-3, rel=0.05)
    naive = np.float32(10) + np.float32(1e-3) * np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    difference = (naive**2).mean(dtype=np.float32) - naive.mean(dtype=np.float32) ** 2
    assert not 0.5e-6 < difference < 2e-6


@pytest.mark.parametrize("axis", [0, -1])
def test_the_standard_error_of_a_mean_is_scipy_s(axis):
    values = np.random.default_rng(0).exponential(size=(3, 5))
    expected = stats.sem(values, axis)
    np.testing.assert_allclose(mean_se(values, axis), expected, rtol=1e-12)
    np.testing.assert_allclose(mean_se(jnp.asarray(values), axis), expected, rtol=1e-6)


def test_standard_errors_cover():
    """Over many passes the mean and the standard deviation lie within their errors as often as a Gaussian says."""

    def scores(key):
        result = gradient_statistics(lambda p, k: p * jax.random.normal(k), jnp.float32(3.0), key, 200).value
        return result.mean / result.mean_se, (result.std - 3.0) / result.std_se

    of_mean, of_std = jax.lax.map(scores, jax.random.split(KEY, 2000))
    for z in (of_mean, of_std):
        # The variance of 2,000 squared scores of mean 1 is about 2 + the excess that 200 replicates leave.
        assert_unbiased((z**2).mean(), np.sqrt(3 / 2000), 1.0, resolution=0.6)


def test_z_scores_point_at_a_wrong_reference():
    def noisy(params, key):
        return params * (1 + jax.random.normal(key))

    right = gradient_statistics(noisy, jnp.float32(1.0), KEY, 1000, reference=1.0).gradient
    wrong = gradient_statistics(noisy, jnp.float32(1.0), KEY, 1000, reference=2.0).gradient
    assert abs(right.z_score) < Z < abs(wrong.z_score)
    assert gradient_statistics(noisy, jnp.float32(1.0), KEY, 1000).gradient.z_score is None


def exact_sine(params, key):
    """A loss without noise, whose gradient is off by rounding."""
    return jnp.sin(1.7 * params) ** 2


def exact_enumeration(params, key):
    return elbo(lambda z: 0.3 * z, dist.Bernoulli(logits=params), key, 8, estimator=enumeration)


def exact_at_the_posterior(params, key):
    def log_joint(z):
        return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.0)

    return elbo(log_joint, dist.Normal(params, 0.5**0.5), key, 8, estimator=sticking_the_landing)


def exact_between_large_numbers(params, key):
    """The mean is rounded to far more than its standard error."""
    return params * (1000 + 1e-2 * jax.random.normal(key))


@pytest.mark.usefixtures("nan_check")
@pytest.mark.parametrize(
    ("exact", "at", "gradient"),
    [
        (exact_sine, 1.3, 1.7 * np.sin(2 * 1.7 * 1.3)),
        (exact_enumeration, 0.3, None),
        (exact_at_the_posterior, 0.5, 0.0),
        (exact_between_large_numbers, 1.0, 1000.0),
    ],
)
def test_z_scores_do_not_measure_rounding(exact, at, gradient):
    at = jnp.float32(at)
    expected = jax.grad(exact)(at, KEY) if gradient is None else jnp.float32(gradient)
    found = gradient_statistics(exact, at, KEY, 1000, reference=expected).gradient
    assert abs(found.z_score) < 4
    assert found.is_rounding == (exact is not exact_between_large_numbers)
    wrong = gradient_statistics(exact, at, KEY, 1000, reference=expected + 0.1).gradient
    assert abs(wrong.z_score) > 20


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_a_small_gradient_is_no_rounding(size):
    def noisy(params, key):
        return params * np.float32(size) * (1 + jax.random.normal(key))

    right, wrong = (
        gradient_statistics(noisy, jnp.float32(1.0), KEY, 1000, reference=jnp.float32(times * size)).gradient
        for times in (1, 2)
    )
    assert not right.is_rounding
    assert abs(right.z_score) < Z < 20 < abs(wrong.z_score)


@pytest.mark.parametrize("alpha", [1.5, 3.0])
def test_tail_index_finds_the_exponent_of_a_pareto_tail(alpha):
    replicates = jnp.asarray(stats.pareto(alpha).rvs(200_000, random_state=0), jnp.float32)
    estimate = summarize(replicates, tail_size=400).tail_index
    assert estimate == pytest.approx(alpha, rel=6 / np.sqrt(400))
    by_sorting = np.sort(np.abs(np.asarray(replicates, float) - replicates.mean()))[::-1][:401]
    assert estimate == pytest.approx(400 / np.log(by_sorting[:-1] / by_sorting[-1]).sum(), rel=1e-3)


def test_the_interval_of_the_tail_index_covers_and_a_low_estimate_proves_nothing():
    """The exact alpha is 1.5 for the Pareto draws; exponential ones have every moment."""
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], (100, 2000))
    heavy = summarize(signs * (1 + generator.pareto(1.5, (100, 2000))))
    covered = (heavy.tail_index_lower <= 1.5) & (heavy.tail_index_upper >= 1.5)
    assert abs(covered.mean() - 0.95) < 6 * np.sqrt(0.95 * 0.05 / 2000)
    light = summarize(generator.exponential(size=(100, 2000)))
    assert 0.4 < (light.tail_index <= 2).mean() < 0.6
    assert (light.tail_index_upper <= 2).mean() < 0.03


def test_a_standard_deviation_of_light_tails_is_vouched_for_and_others_are_not():
    generator = np.random.default_rng(0)
    replicates = {
        "normal": generator.normal(size=(2000, 50)),
        "lognormal": generator.lognormal(size=(2000, 50)),
        "t3": generator.standard_t(3, (2000, 50)),
        "coin": generator.integers(0, 2, (2000, 50)).astype(float),
        "constant": np.ones((2000, 50)),
    }
    shares = {name: float(found.mean()) for name, found in summarize(replicates).reliable.items()}
    assert shares["normal"] > 0.9
    assert max(shares[name] for name in shares if name != "normal") < 0.1


SIMULATED = {
    "normal": (lambda draw, size: draw.normal(size=size), 1.0),
    "uniform": (lambda draw, size: draw.uniform(size=size), 12**-0.5),
    "exponential": (lambda draw, size: draw.exponential(size=size), 1.0),
    "laplace": (lambda draw, size: draw.laplace(size=size), 2**0.5),
    "square of a normal": (lambda draw, size: draw.normal(size=size) ** 2, 2**0.5),
    "cube of a normal": (lambda draw, size: draw.normal(size=size) ** 3, 15**0.5),
    "lognormal": (lambda draw, size: draw.lognormal(size=size), (math.e**2 - math.e) ** 0.5),
    "t3": (lambda draw, size: draw.standard_t(3, size), 3**0.5),
    "t5": (lambda draw, size: draw.standard_t(5, size), (5 / 3) ** 0.5),
    "coin": (lambda draw, size: draw.integers(0, 2, size).astype(float), 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("num_replicates", [100, 1000, 10_000])
@pytest.mark.parametrize("name", SIMULATED)
def test_intervals_of_a_standard_deviation_cover_where_they_are_reliable(name, num_replicates):
    """A rare few runs of a heavy tail look light: too few to tell their coverage."""
    draw, std = SIMULATED[name]
    parts = []
    for seed in range(10):
        found = summarize(draw(np.random.default_rng(seed), (num_replicates, 100)).astype(np.float32))
        parts.append((np.abs(found.std - std) < 1.96 * found.std_se, found.reliable))
    covers, reliable = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert (reliable & ~covers).mean() < 0.08
    if reliable.mean() > 0.05:
        error = np.sqrt(0.9 * 0.1 / reliable.sum())
        assert covers[reliable].mean() > 0.9 - 3 * error


def test_tail_index_can_be_left_out():
    assert gradient_statistics(loss, PARAMS, KEY, 100, tail_size=0).value.tail_index is None


CONSTANT = {"zero": jnp.float32(0.0), "two": jnp.float32(2.0)}


@pytest.mark.usefixtures("nan_check")
@pytest.mark.parametrize("settings", [{}, {"tail_size": 0}, {"reference": CONSTANT}])
def test_nothing_is_nan_where_nothing_varies(settings):
    measured = gradient_statistics(lambda p, key: (p["two"] ** 2 + p["zero"] ** 2) / 2, CONSTANT, KEY, 30, **settings)
    given = summarize({"zero": np.zeros(30), "two": np.full(30, 2.0)}, **settings)
    for found in (measured.gradient, given):
        assert found.std == found.std_se == found.variance_se == {"zero": 0, "two": 0}
        assert found.signal_to_noise == {"zero": 0, "two": np.inf}
        assert (found.tail_index is None) == (found.reliable is None) == ("tail_size" in settings)
        assert (found.z_score is None) == ("reference" not in settings)


@pytest.mark.usefixtures("nan_check")
def test_random_losses_pass_the_check_for_nan():
    found = gradient_statistics(lambda p, key: p * jax.random.normal(key), jnp.float32(1.0), KEY, 50)
    assert found.gradient.z_score is None
    assert gradient_replicates(loss, PARAMS, KEY, 3)[0].shape == (3,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_counted_and_never_averaged_away(bad):
    def sometimes(params, key):
        return params * jnp.where(jax.random.uniform(key) < 0.1, bad, 1.0)

    values, _ = gradient_replicates(sometimes, jnp.float32(1.0), KEY, 100)
    statistics = gradient_statistics(sometimes, jnp.float32(1.0), KEY, 100, chunk_size=7).value
    assert statistics.num_nonfinite == (~np.isfinite(values)).sum() > 0
    assert not np.isfinite(statistics.mean)
    assert np.isnan(statistics.variance)
    assert np.isnan(statistics.tail_index)


def test_a_pass_compiles_once_and_works_inside_other_transformations():
    # One trace is of a replicate, to choose the chunk by, and the other of the program.
    counted = chex.assert_max_traces(loss, n=2)
    gradient_statistics(counted, PARAMS, KEY, 50)
    gradient_statistics(counted, jax.tree.map(lambda x: x + 1, PARAMS), jax.random.key(1), 50)
    with pytest.raises(AssertionError, match="is traced > "):
        gradient_statistics(counted, PARAMS, KEY, 51)
    variances = jax.vmap(lambda a: gradient_statistics(loss, PARAMS | {"a": a}, KEY, 50).value.variance)(jnp.ones(3))
    np.testing.assert_allclose(variances, variances[0])
    assert np.isfinite(
        jax.grad(lambda a: gradient_statistics(loss, PARAMS | {"a": a}, KEY, 50, tail_size=0).value.mean)(1.0)
    )


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e12, 1e18])
def test_standard_errors_scale_with_the_gradient(size):
    def scaled(size, chunk_size):
        return gradient_statistics(
            lambda p, k: p * size * jax.random.exponential(k), jnp.float32(1.0), KEY, 300, chunk_size=chunk_size
        ).gradient

    one, other = scaled(1.0, 300), scaled(np.float32(size), 11)
    for field in ("mean", "mean_se", "std", "std_se"):
        assert getattr(other, field) == pytest.approx(float(getattr(one, field)) * size, rel=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_counted_and_summed_in_single(dtype):
    def half(params, key):
        return params * jax.random.normal(key, dtype=dtype)

    statistics = gradient_statistics(half, jnp.ones((), dtype), KEY, 5000, chunk_size=1).value
    assert statistics.num_replicates == 5000
    assert statistics.std == pytest.approx(1, abs=6 / np.sqrt(2 * 5000))
    assert 0.5 < statistics.std_se * np.sqrt(2 * 5000) < 2


def test_numpy_replicates_of_any_dtype_can_be_summarized():
    for dtype in ("int32", "float32"):
        assert summarize(np.arange(100, dtype=dtype)).mean == pytest.approx(49.5)


def test_float64_stays_float64(float64):
    statistics = gradient_statistics(lambda p, k: p * jax.random.normal(k), jnp.float64(1.0), jax.random.key(0), 10)
    assert statistics.gradient.mean.dtype == jnp.float64


MISUSES = [
    ("num_replicates must be at least 2, got 1", {"num_replicates": 1}),
    ("chunk_size must be at least 1, got 0", {"num_replicates": 10, "chunk_size": 0}),
    ("tail_size must be from 0 to .* = 4, got 5", {"num_replicates": 10, "tail_size": 5}),
]


@pytest.mark.parametrize(("message", "arguments"), MISUSES)
def test_misuse_is_refused(message, arguments):
    with pytest.raises(ValueError, match=message):
        gradient_statistics(loss, PARAMS, KEY, **arguments)
