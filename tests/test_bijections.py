import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints, transforms
from numpyro.distributions.transforms import biject_to

from vae_jax.bijections import bijection_to, stable

REFORMED = {
    "simplex": (constraints.simplex, 3),
    "one share": (constraints.simplex, 1),
    "correlation Cholesky": (constraints.corr_cholesky, 6),
    "one correlation": (constraints.corr_cholesky, 1),
    "correlation matrix": (constraints.corr_matrix, 3),
}


@pytest.mark.parametrize("name", REFORMED)
def test_the_bijections_are_numpyro_s(name, float64):
    constraint, size = REFORMED[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, size)))
    ours, theirs = bijection_to(constraint), biject_to(constraint)
    y = ours(x)
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(y, theirs(x), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(ours.log_abs_det_jacobian(x, y), theirs.log_abs_det_jacobian(x, y), rtol=1e-10)
        np.testing.assert_allclose(ours.inv(y), x, rtol=1e-9)
        assert constraint(y).all()


@pytest.mark.parametrize("far", [12.0, 40.0, 200.0])
def test_a_draw_stays_in_its_support(far):
    signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], size=(50, 6)), jnp.float32)
    shares = bijection_to(constraints.simplex)(far * signs)
    assert (shares > 0).all()
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-6)
    factors = bijection_to(constraints.corr_cholesky)(far * signs)
    assert (jnp.diagonal(factors, axis1=-2, axis2=-1) > 0).all()
    np.testing.assert_allclose((factors**2).sum(axis=-1), 1, rtol=1e-6)


def test_parts_of_a_bijection_are_reformed_too():
    x = jnp.full((2, 2), 30.0)
    parts = transforms.ComposeTransform([transforms.StickBreakingTransform(), transforms.AffineTransform(0.0, 1e9)])
    for nested in (parts, transforms.IndependentTransform(parts, 1)):
        assert (stable(nested)(x)[..., -1] < 1e-3).all()
