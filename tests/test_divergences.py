import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from vae_jax import kl_diagonal_gaussian, kl_gaussian, kl_standard_normal

scales = st.floats(0.05, 20)
locs = st.floats(-5, 5)


@given(loc_q=locs, scale_q=scales, loc_p=locs, scale_p=scales)
@settings(max_examples=30, deadline=None)
def test_diagonal_matches_its_integral(loc_q, scale_q, loc_p, scale_p):
    q, p = norm(loc_q, scale_q), norm(loc_p, scale_p)
    expected, error = quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), loc_q - 12 * scale_q, loc_q + 12 * scale_q, limit=200
    )
    with jax.enable_x64(True):
        got = kl_diagonal_gaussian(*(jnp.array([x]) for x in (loc_q, scale_q, loc_p, scale_p)))
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
    got = kl_gaussian(*map(jnp.asarray, (loc_q, tril_q, loc_p, tril_p)))
    assert got == pytest.approx(expected, rel=1e-12)


def test_full_of_diagonal_factors_is_the_diagonal_one(float64):
    loc_q, loc_p = jnp.array([0.1, -2.0]), jnp.array([0.3, 1.0])
    scale_q, scale_p = jnp.array([0.5, 1.5]), jnp.array([0.6, 0.4])
    full = kl_gaussian(loc_q, jnp.diag(scale_q), loc_p, jnp.diag(scale_p))
    assert full == pytest.approx(float(kl_diagonal_gaussian(loc_q, scale_q, loc_p, scale_p)), rel=1e-14)


def test_standard_normal_is_the_diagonal_one_against_it():
    loc, scale = jnp.array([[0.3, -1.0]]), jnp.array([[0.2, 3.0]])
    expected = kl_diagonal_gaussian(loc, scale, jnp.zeros((1, 2)), jnp.ones((1, 2)))
    assert kl_standard_normal(loc, scale) == expected


@pytest.mark.parametrize("excess", [1e-7, 1e-6, 1e-4, 1e-2, 0.1, 0.11, 0.2, -1e-6, -0.1, -0.12, -0.2])
def test_float32_keeps_its_digits_near_equality(excess):
    scale = np.float32(1) + np.float32(excess)
    ratio = np.float64(scale)
    # log1p in extended precision: (r^2 - 1 - log r^2) / 2 with the difference taken exactly.
    square_excess = np.longdouble(ratio) ** 2 - 1
    expected = float((square_excess - np.log1p(square_excess)) / 2)
    got = kl_standard_normal(jnp.zeros(1), jnp.array([scale]))
    assert got == pytest.approx(expected, rel=2e-5)
    as_matrix = kl_gaussian(jnp.zeros(1), jnp.array([[scale]]), jnp.zeros(1), jnp.ones((1, 1)))
    assert as_matrix == pytest.approx(expected, rel=2e-5)


def test_near_equality_a_plain_difference_would_fail_that_test():
    scale = np.float32(1) + np.float32(3e-7)
    plain = (scale**2 - np.float32(1) - np.log(scale**2)) / np.float32(2)
    assert abs(plain / (scale - np.float32(1)) ** 2 - 1) > 2e-5


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 0.5, 1.0, 2.0, 1e15])
def test_gradients_are_finite(scale):
    gradient = jax.grad(lambda s: kl_standard_normal(jnp.zeros(1), s))(jnp.array([scale]))
    assert np.isfinite(gradient).all()
    if scale == 1.0:
        assert gradient == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_an_invalid_scale_has_neither_value_nor_gradient(scale):
    value, gradient = jax.jit(jax.value_and_grad(kl_standard_normal, argnums=1))(jnp.zeros(2), jnp.array([1.0, scale]))
    assert np.isnan(value)
    assert np.isnan(gradient).any()
    factor = jnp.diag(jnp.array([1.0, scale]))
    assert not np.isfinite(kl_gaussian(jnp.zeros(2), factor, jnp.zeros(2), jnp.eye(2)))
    assert not np.isfinite(kl_gaussian(jnp.zeros(2), jnp.eye(2), jnp.zeros(2), factor))


def test_works_under_jit_vmap_and_scan(strict_dtypes):
    locs, scales = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), jnp.linspace(0.5, 2.0, 6).reshape(3, 2)
    one_by_one = jnp.stack([kl_standard_normal(*pair) for pair in zip(locs, scales, strict=True)])
    batched = jax.jit(jax.vmap(kl_standard_normal))(locs, scales)
    _, scanned = jax.lax.scan(lambda carry, pair: (carry, kl_standard_normal(*pair)), None, (locs, scales))
    np.testing.assert_allclose(batched, one_by_one, rtol=1e-6)
    np.testing.assert_allclose(scanned, one_by_one, rtol=1e-6)
