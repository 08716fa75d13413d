import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from vae_jax import (
    dual_geometric_jensen_shannon,
    geometric_jensen_shannon,
    geometric_mean_gaussian,
    kl_diagonal_gaussian,
    kl_gaussian,
    kl_standard_normal,
)


@functools.cache
def compiled(function):
    """One program for each shape and type of its arguments."""
    return jax.jit(function)


def log_density(loc, scale):
    """Density of a Gaussian at a number."""
    return lambda z: -(((z - loc) / scale) ** 2) / 2 - math.log(scale * math.sqrt(2 * math.pi))


scales = st.floats(0.05, 20)
locs = st.floats(-5, 5)


@given(loc_q=locs, scale_q=scales, loc_p=locs, scale_p=scales)
@settings(max_examples=30, deadline=None)
def test_diagonal_matches_its_integral(loc_q, scale_q, loc_p, scale_p):
    log_q, log_p = log_density(loc_q, scale_q), log_density(loc_p, scale_p)
    expected, error = quad(
        lambda z: math.exp(log_q(z)) * (log_q(z) - log_p(z)), loc_q - 12 * scale_q, loc_q + 12 * scale_q, limit=200
    )
    with jax.enable_x64(True):
        got = compiled(kl_diagonal_gaussian)(*(np.array([x]) for x in (loc_q, scale_q, loc_p, scale_p)))
    assert got == pytest.approx(expected, abs=1e-9 + 10 * error, rel=1e-8)


def textbook_kl(loc_q, cov_q, loc_p, cov_p):
    shift = loc_p - loc_q
    _, log_det_q = np.linalg.slogdet(cov_q)
    _, log_det_p = np.linalg.slogdet(cov_p)
    trace = np.trace(np.linalg.solve(cov_p, cov_q))
    return (trace - len(loc_q) + log_det_p - log_det_q + shift @ np.linalg.solve(cov_p, shift)) / 2


def random_gaussian(seed, size=4):
    generator = np.random.default_rng(seed)
    scale_tril = np.tril(generator.normal(size=(size, size)), -1) + np.diag(generator.uniform(0.5, 2, size))
    return generator.normal(size=size), scale_tril


def test_full_matches_the_textbook_formula(float64):
    (loc_q, tril_q), (loc_p, tril_p) = random_gaussian(0), random_gaussian(1)
    expected = textbook_kl(loc_q, tril_q @ tril_q.T, loc_p, tril_p @ tril_p.T)
    got = compiled(kl_gaussian)(loc_q, tril_q, loc_p, tril_p)
    assert got == pytest.approx(expected, rel=1e-12)
    above = np.triu(np.ones_like(tril_q), 1)
    full = kl_gaussian(*map(jnp.asarray, (loc_q, tril_q + above, loc_p, tril_p - above)))
    assert full == got, "what is above the diagonals is read"


def test_full_of_diagonal_factors_is_the_diagonal_one(float64):
    loc_q, loc_p = np.array([0.1, -2.0]), np.array([0.3, 1.0])
    scale_q, scale_p = np.array([0.5, 1.5]), np.array([0.6, 0.4])
    full = compiled(kl_gaussian)(loc_q, np.diag(scale_q), loc_p, np.diag(scale_p))
    assert full == pytest.approx(float(compiled(kl_diagonal_gaussian)(loc_q, scale_q, loc_p, scale_p)), rel=1e-14)


def test_standard_normal_is_the_diagonal_one_against_it():
    loc, scale, zero, one = np.float32([[[0.3, -1.0]], [[0.2, 3.0]], [[0.0, 0.0]], [[1.0, 1.0]]])
    expected = compiled(kl_diagonal_gaussian)(loc, scale, zero, one)
    assert compiled(kl_standard_normal)(loc, scale) == expected


@pytest.mark.parametrize("excess", [1e-7, 1e-6, 1e-4, 1e-2, 0.1, 0.11, 0.2, -1e-6, -0.1, -0.12, -0.2])
def test_float32_keeps_its_digits_near_equality(excess):
    scale = np.float32(1) + np.float32(excess)
    ratio = np.float64(scale)
    # log1p in extended precision: (r^2 - 1 - log r^2) / 2 with the difference taken exactly.
    square_excess = np.longdouble(ratio) ** 2 - 1
    expected = float((square_excess - np.log1p(square_excess)) / 2)
    zero = np.zeros(1, np.float32)
    got = compiled(kl_standard_normal)(zero, np.array([scale]))
    assert got == pytest.approx(expected, rel=2e-5)
    as_matrix = compiled(kl_gaussian)(zero, np.array([[scale]]), zero, np.ones((1, 1), np.float32))
    assert as_matrix == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("excess", [0.01, 0.05, 0.1, 0.118, -0.01, -0.05, -0.1, -0.133])
def test_float64_keeps_its_digits_near_equality(excess, float64):
    scale = np.float64(1 + excess)
    square_excess = np.longdouble(scale) ** 2 - 1
    expected = float((square_excess - np.log1p(square_excess)) / 2)
    assert kl_standard_normal(jnp.zeros(1), jnp.array([scale])) == pytest.approx(expected, rel=1e-13)


def test_near_equality_a_plain_difference_would_fail_that_test():
    scale = np.float32(1) + np.float32(3e-7)
    plain = (scale**2 - np.float32(1) - np.log(scale**2)) / np.float32(2)
    assert abs(plain / (scale - np.float32(1)) ** 2 - 1) > 2e-5


SLOPE_BY_SCALE = jax.value_and_grad(kl_standard_normal, argnums=1)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 0.5, 1.0, 2.0, 1e15])
def test_gradients_are_finite(scale):
    _, gradient = compiled(SLOPE_BY_SCALE)(np.zeros(1, np.float32), np.float32([scale]))
    assert np.isfinite(gradient).all()
    if scale == 1.0:
        assert gradient == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_an_invalid_scale_has_neither_value_nor_gradient(scale):
    zeros, eye, scales = np.zeros(2, np.float32), np.eye(2, dtype=np.float32), np.float32([1.0, scale])
    value, gradient = compiled(SLOPE_BY_SCALE)(zeros, scales)
    assert np.isnan(value)
    assert np.isnan(gradient).any()
    factor = np.diag(scales)
    assert not np.isfinite(compiled(kl_gaussian)(zeros, factor, zeros, eye))
    assert not np.isfinite(compiled(kl_gaussian)(zeros, eye, zeros, factor))


def test_works_under_jit_vmap_and_scan(strict_dtypes):
    locs, scales = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), jnp.linspace(0.5, 2.0, 6).reshape(3, 2)
    one_by_one = np.stack([kl_standard_normal(*pair) for pair in zip(locs, scales, strict=True)])
    batched = jax.jit(jax.vmap(kl_standard_normal))(locs, scales)
    _, scanned = jax.lax.scan(lambda carry, pair: (carry, kl_standard_normal(*pair)), None, (locs, scales))
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-6)
    np.testing.assert_allclose(scanned, one_by_one, rtol=1e-6)


SKEWED = [geometric_jensen_shannon, dual_geometric_jensen_shannon]
GAUSSIANS = tuple(np.array([x]) for x in (0.4, 0.7, -0.5, 1.6))


def integral(function):
    value, error = quad(function, -25, 25, limit=400, points=[0.0])
    assert error < 1e-7
    return value


def by_integration(loc_q, scale_q, loc_p, scale_p, alpha, middle_alpha, *, dual):
    """(1 - alpha) KL(q || m) + alpha KL(p || m), or of m to both, m normalised by integration."""
    log_q, log_p = log_density(loc_q, scale_q), log_density(loc_p, scale_p)

    def log_mean(z):
        return (1 - middle_alpha) * log_q(z) + middle_alpha * log_p(z)

    log_mass = math.log(integral(lambda z: math.exp(log_mean(z))))

    def kl(log_a, log_b):
        return integral(lambda z: math.exp(log_a(z)) * (log_a(z) - log_b(z)))

    def log_m(z):
        return log_mean(z) - log_mass

    pairs = [(log_m, x) if dual else (x, log_m) for x in (log_q, log_p)]
    return (1 - alpha) * kl(*pairs[0]) + alpha * kl(*pairs[1])


@pytest.mark.parametrize("gaussians", [(0.4, 0.7, -0.5, 1.6), (-1.0, 1.8, 0.5, 0.6), (0.0, 1.0, 0.1, 1.05)])
@pytest.mark.parametrize(("alpha", "middle_alpha"), [(0.5, None), (0.2, None), (0.9, 0.1), (0.0, 1.0), (0.3, 0.6)])
def test_skewed_divergences_match_their_integrals(float64, gaussians, alpha, middle_alpha):
    arrays = [jnp.array([x]) for x in gaussians]
    middle = alpha if middle_alpha is None else middle_alpha
    for divergence in SKEWED:
        expected = by_integration(*gaussians, alpha, middle, dual=divergence is dual_geometric_jensen_shannon)
        assert divergence(*arrays, alpha=alpha, middle_alpha=middle_alpha) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_identities(float64, alpha):
    arrays = [jnp.asarray(x) for x in GAUSSIANS]
    q, p = (norm(*(x.item() for x in pair)) for pair in (GAUSSIANS[:2], GAUSSIANS[2:]))
    distance = -np.log(integral(lambda z: np.exp((1 - alpha) * q.logpdf(z) + alpha * p.logpdf(z))))
    symmetric = kl_diagonal_gaussian(*arrays) + kl_diagonal_gaussian(*arrays[2:], *arrays[:2])
    assert dual_geometric_jensen_shannon(*arrays, alpha=alpha) == pytest.approx(distance, abs=1e-12)
    skewed = geometric_jensen_shannon(*arrays, alpha=alpha)
    assert skewed == pytest.approx(float(alpha * (1 - alpha) * symmetric) - distance, abs=1e-12)
    if alpha in (0, 1):
        assert skewed == 0
        assert dual_geometric_jensen_shannon(*arrays, alpha=alpha) == 0


def test_the_swapped_middle_runs_from_one_divergence_to_the_other(float64):
    arrays = [jnp.asarray(x) for x in GAUSSIANS]
    forward, backward = kl_diagonal_gaussian(*arrays), kl_diagonal_gaussian(*arrays[2:], *arrays[:2])
    for divergence, ends in zip(SKEWED, [(forward, backward), (backward, forward)], strict=True):
        got = [divergence(*arrays, alpha=alpha, middle_alpha=1 - alpha) for alpha in (0.0, 1.0)]
        np.testing.assert_allclose(got, ends, rtol=1e-13)


def test_an_arithmetic_middle_is_another_number(float64):
    loc_q, scale_q, loc_p, scale_p = arrays = [jnp.asarray(x) for x in GAUSSIANS]
    middle = (loc_q + loc_p) / 2, (scale_q + scale_p) / 2
    arithmetic = (kl_diagonal_gaussian(loc_q, scale_q, *middle) + kl_diagonal_gaussian(loc_p, scale_p, *middle)) / 2
    assert abs(arithmetic / geometric_jensen_shannon(*arrays, alpha=0.5) - 1) > 0.05


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_geometric_mean_is_the_normalised_product(float64, alpha):
    loc, scale = geometric_mean_gaussian(*(jnp.asarray(x) for x in GAUSSIANS), alpha=alpha)
    loc_q, scale_q, loc_p, scale_p = (x.item() for x in GAUSSIANS)
    z = np.linspace(-2, 2, 5)
    product = (1 - alpha) * norm.logpdf(z, loc_q, scale_q) + alpha * norm.logpdf(z, loc_p, scale_p)
    difference = norm.logpdf(z, loc.item(), scale.item()) - product
    np.testing.assert_allclose(difference, difference[0], atol=1e-13)


def test_skewed_divergences_sum_over_all_axes():
    arrays = [jnp.asarray(x, jnp.float32) for x in GAUSSIANS]
    for divergence in SKEWED:
        twice = divergence(*(jnp.broadcast_to(x, (2, 3)) for x in arrays), alpha=0.3)
        assert twice == pytest.approx(6 * float(divergence(*arrays, alpha=0.3)), rel=1e-6)


MIDDLES = {"same": lambda alpha: None, "swapped": lambda alpha: 1 - alpha}


@functools.cache
def compiled_with_gradient(divergence, middle):
    """The value of a divergence and its gradient by the Gaussians and alpha."""

    def function(*arguments):
        return divergence(*arguments[:4], alpha=arguments[4], middle_alpha=MIDDLES[middle](arguments[4]))

    return jax.jit(jax.value_and_grad(function, argnums=range(5)))


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("middle", MIDDLES)
@pytest.mark.parametrize("divergence", SKEWED)
def test_gradients_match_finite_differences(float64, divergence, middle, alpha, equal):
    gaussians = (*GAUSSIANS[:2], *GAUSSIANS[:2]) if equal else GAUSSIANS
    arguments = [*gaussians, np.asarray(alpha)]

    def slope(number, step=1e-4):
        """Slope of the parabola through three points, which at an end of alpha's range lie on one side."""
        offsets = {0.0: (0, 1, 2), 1.0: (-2, -1, 0)}.get(alpha, (-1, 0, 1)) if number == 4 else (-1, 0, 1)
        moved = [[x + step * o if i == number else x for i, x in enumerate(arguments)] for o in offsets]
        values = [float(compiled_with_gradient(divergence, middle)(*at)[0]) for at in moved]
        return np.polyval(np.polyder(np.polyfit(offsets, values, 2)), 0) / step

    _, gradient = compiled_with_gradient(divergence, middle)(*arguments)
    for number, got in enumerate(gradient):
        assert got.item() == pytest.approx(slope(number), rel=1e-6, abs=1e-6)
    if equal:
        np.testing.assert_allclose([g.item() for g in gradient], 0, atol=1e-15)


def textbook_skewed(loc_q, scale_q, loc_p, scale_p, alpha, middle_alpha, *, dual):
    parts = (1 - middle_alpha) / scale_q**2, middle_alpha / scale_p**2
    precision = sum(parts)
    # The distances from the middle are products: its own loc would have lost them to rounding.
    shifts = [part / precision * (loc_q - loc_p) for part in reversed(parts)]

    def kl(shift, scale_a, scale_b):
        return ((scale_a / scale_b) ** 2 - 1 - 2 * np.log(scale_a / scale_b) + (shift / scale_b) ** 2) / 2

    scales = [(precision**-0.5, x) if dual else (x, precision**-0.5) for x in (scale_q, scale_p)]
    return (1 - alpha) * kl(shifts[0], *scales[0]) + alpha * kl(shifts[1], *scales[1])


@pytest.mark.parametrize("distance", [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5])
@pytest.mark.parametrize("divergence", SKEWED)
def test_skewed_divergences_keep_their_digits_in_float32(divergence, distance):
    dual = divergence is dual_geometric_jensen_shannon
    for shift, stretch, alpha in itertools.product((0, 0.7), (-1, 1), (0.1, 0.5, 0.9)):
        arguments = [np.float32(x) for x in (3 + shift * distance, 1 + stretch * distance, 3, 1, alpha)]
        for middle in (arguments[4], 1 - arguments[4]):
            exact = textbook_skewed(*(np.longdouble(x) for x in (*arguments, middle)), dual=dual)
            alphas = {"alpha": arguments[4], "middle_alpha": middle}
            got = compiled(divergence)(*(np.array([x]) for x in arguments[:4]), **alphas)
            assert got == pytest.approx(float(exact), rel=1e-5)


def test_through_the_middle_s_own_parameters_those_digits_are_lost():
    arrays = [jnp.array([np.float32(x)]) for x in (3.00001, 1, 3, 1)]
    loc, scale = geometric_mean_gaussian(*arrays, alpha=0.7)
    plain = 0.7 * kl_diagonal_gaussian(*arrays[:2], loc, scale) + 0.3 * kl_diagonal_gaussian(*arrays[2:], loc, scale)
    # At the minimum over the middle, which is where its alpha is the weight, rounding it would do no harm.
    exact = geometric_jensen_shannon(*arrays, alpha=0.3, middle_alpha=0.7)
    assert abs(plain / exact - 1) > 1e-3


@pytest.mark.parametrize("divergence", SKEWED)
def test_extreme_scales_overflow_only_where_the_truth_does(divergence):
    dual = divergence is dual_geometric_jensen_shannon
    largest = float(jnp.finfo(jnp.float32).max)

    def value(*at):
        return divergence(*at[:4], alpha=at[4], middle_alpha=at[5])

    both = jax.jit(jax.value_and_grad(value, argnums=range(6)))

    def numbers(arguments):
        arrays = [np.array([x]) for x in arguments[:4]] + [np.array(x) for x in arguments[4:]]
        got, slopes = both(*arrays)
        return got.item(), [slope.item() for slope in slopes]

    for log_q, log_p, alpha, middle in itertools.product((-40, -3, 40), (-40, 0, 40), (0, 0.3, 1), (0, 0.3, 1)):
        arguments = [np.float32(x) for x in (0.7, np.exp(log_q), -0.2, np.exp(log_p), alpha, middle)]
        exact = textbook_skewed(*map(np.float64, arguments), dual=dual)
        got, _ = numbers(arguments)
        if exact < largest:
            assert got == pytest.approx(exact, rel=2e-5, abs=1e-30)
        # Gradients where no distance in units of the scales overflows.
        arguments[0], arguments[2] = np.minimum(arguments[1], arguments[3]), np.float32(0)
        _, slopes = numbers(arguments)
        with jax.enable_x64(True):
            _, exact_slopes = numbers([np.float64(x) for x in arguments])
        units = [float(arguments[i]) for i in (1, 1, 3, 3)] + [1, 1]
        for slope, exact_slope, unit in zip(slopes, exact_slopes, units, strict=True):
            if abs(exact_slope) < largest:
                assert slope * unit == pytest.approx(exact_slope * unit, rel=1e-4, abs=1e-5)


@functools.cache
def slope_by_loc(divergence):
    return jax.jit(jax.value_and_grad(divergence))


@pytest.mark.parametrize("name", ["alpha", "middle_alpha"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.nan])
def test_an_alpha_outside_its_range(name, wrong):
    arrays = [jnp.asarray(x, jnp.float32) for x in GAUSSIANS]
    for divergence in SKEWED:
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got {wrong}"):
            divergence(*arrays, **({"alpha": 0.5} | {name: wrong}))
        given = {"alpha": np.float32(0.5), "middle_alpha": np.float32(0.5)} | {name: np.float32(wrong)}
        value, slope = slope_by_loc(divergence)(*arrays, **given)
        assert np.isnan(value)
        assert np.isnan(slope).all()
    with pytest.raises(ValueError, match="alpha must be in"):
        geometric_mean_gaussian(*arrays, alpha=wrong)


@pytest.mark.slow
def test_skewed_divergences_work_under_jit_vmap_and_scan(strict_dtypes):
    locs, scales = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), jnp.linspace(0.5, 2.0, 6).reshape(3, 2)
    alphas = jnp.array([0.0, 0.4, 1.0])
    for divergence in SKEWED:

        def function(loc, scale, alpha, divergence=divergence):
            return divergence(loc, scale, jnp.zeros(2), jnp.ones(2), alpha=alpha, middle_alpha=1 - alpha)

        both = jax.value_and_grad(function, argnums=(0, 1, 2))
        one_by_one = [jax.jit(both)(*triple) for triple in zip(locs, scales, alphas, strict=True)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one)
        batched = jax.jit(jax.vmap(both))(locs, scales, alphas)
        _, scanned = jax.lax.scan(lambda carry, x, both=both: (carry, both(*x)), None, (locs, scales, alphas))
        for got in (batched, scanned):
            chex.assert_trees_all_close(got, stacked, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", [jnp.float16, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (jnp.bfloat16, jnp.float32))]
)
def test_no_divergence_is_nan_in_any_precision(dtype):
    locs, scales = [0.0, -3.0], [1e-3, 0.1, 1.0, 100.0]
    cases = jnp.asarray(list(itertools.product(locs, scales, locs, scales)), dtype).reshape(-1, 4, 1)

    @jax.jit
    def divergences(q_and_p):
        skewed = (geometric_jensen_shannon, dual_geometric_jensen_shannon)
        return kl_diagonal_gaussian(*q_and_p), *(f(*q_and_p, alpha=alpha) for f in skewed for alpha in (0.0, 0.5, 1.0))

    found = np.asarray(jnp.stack(jax.vmap(divergences)(cases)), float)
    assert not np.isnan(found).any()
    exact = np.asarray(jnp.stack(jax.vmap(divergences)(cases.astype(jnp.float32))), float)
    representable = exact < float(jnp.finfo(dtype).max)
    # Half precisions round what they are given: the scale 1e-3 by up to 0.4%, and its square in a ratio twice.
    np.testing.assert_allclose(found[representable], exact[representable], rtol=0.1, atol=0.05)
