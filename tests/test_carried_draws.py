from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, transforms
from scipy import integrate, stats

from vae_jax import bounds, distributions, elbo, estimators
from vae_jax.bounds.log_weights import carried_log_weight
from vae_jax.carried_draws import source_of
from vae_jax.inference import FullRankNormal, MeanFieldNormal, Support

SUPPORTS = {
    "simplex": Support(constraints.simplex, (4,)),
    "ordered": Support(constraints.ordered_vector, (3,)),
    "interval": Support(constraints.interval(-1.0, 3.0)),
    "unit interval": Support(constraints.unit_interval),
    "positive": Support(constraints.positive),
    "above": Support(constraints.greater_than(1000.0), (2,)),
    "lower Cholesky": Support(constraints.lower_cholesky, (3, 3)),
    "correlation Cholesky": Support(constraints.corr_cholesky, (3, 3)),
    "correlation matrix": Support(constraints.corr_matrix, (3, 3)),
}


def bounded(z):
    return sum(jnp.tanh(leaf).sum() for leaf in jax.tree.leaves(z))


@pytest.mark.parametrize("family", [MeanFieldNormal, pytest.param(FullRankNormal, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SUPPORTS)
def test_weights_far_out_are_those_of_float64(name, family):
    """The log weight and its gradient by q's parameters, at the same draw."""
    made = family(SUPPORTS[name])
    size = made.space.size
    start = jax.tree.map(np.asarray, made.init(jax.random.key(0)))
    shape = np.linspace(0.5, 1, size)

    def weight(params, loc):
        params = params | {"loc": params["loc"] + loc}
        vector = params["loc"] + jnp.exp(params["log_scale"]) * jnp.asarray(np.linspace(-2, 2, size), loc.dtype)
        objective, base = carried_log_weight(bounded, made.distribution(params))
        return objective(vector if family is FullRankNormal else made.space.by_latent(lambda _, x: x, vector), base)

    def at(dtype):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), start)
        locs = jnp.asarray(np.outer([-30, -12, 0, 12, 30], shape), dtype)
        return jax.jit(jax.vmap(jax.value_and_grad(weight), (None, 0)))(params, locs)

    found = at(jnp.float32)
    with jax.enable_x64(True):
        exact = at(jnp.float64)
    assert jax.tree.leaves(exact)[0].dtype == np.float64
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


CARRIED = {
    "log normal": lambda: dist.LogNormal(0.3, 0.5),
    "vector": lambda: dist.LogNormal(jnp.zeros(2), 0.5).to_event(1),
    "expanded": lambda: dist.LogNormal(0.3, 0.5).expand([2]).to_event(1),
    "logistic normal": lambda: dist.TransformedDistribution(dist.Normal(0.3, 0.5), transforms.SigmoidTransform()),
    "simplex": lambda: dist.TransformedDistribution(
        dist.Normal(jnp.array([0.2, -0.3]), 0.5).to_event(1), transforms.StickBreakingTransform()
    ),
    "normal and log normal": lambda: {"a": dist.Normal(0.0, 1.0), "b": dist.LogNormal(0.0, 0.5)},
    "full rank": lambda: _full_rank(),
}


def _full_rank():
    family = FullRankNormal({"a": constraints.positive, "b": Support(constraints.simplex, (3,))})
    return family.distribution(family.init(jax.random.key(1)))


@pytest.mark.parametrize("name", CARRIED)
def test_draws_and_densities_are_those_of_the_distribution(name, float64):
    q = CARRIED[name]()
    base, carry, uncarry = source_of(q)
    assert base is not q
    samples = distributions.sample(q, jax.random.key(0), 20)
    draws = distributions.sample(base, jax.random.key(0), 20)
    carried, log_determinants = jax.vmap(carry)(draws)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), carried, samples)
    logs = distributions.log_probs(base, draws) - log_determinants
    np.testing.assert_allclose(logs, distributions.log_probs(q, samples), rtol=1e-9)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8), jax.vmap(uncarry)(samples), draws)


def test_what_is_not_carried_is_its_own_base():
    q = {"a": dist.Normal(0.0, 1.0), "b": dist.Gamma(2.0, 1.0)}
    assert source_of(q).base is q


def test_a_bijection_with_a_parameter_stays_within_the_distribution():
    """A score function sees the parameter only there."""

    @jax.jit
    def loss(shift):
        q = dist.TransformedDistribution(dist.Normal(0.0, 1.0), transforms.AffineTransform(shift, 2.0))
        return elbo(lambda z: -(z**2), q, jax.random.key(0), 100_000, estimator=estimators.score_function)

    assert jax.grad(loss)(0.7) == pytest.approx(-1.4, abs=0.1)


BOUNDS = {
    "elbo": elbo,
    "elbo by the score": partial(elbo, estimator=estimators.score_function),
    "closed-form entropy": partial(elbo, estimator=estimators.closed_form_entropy),
    "one term in closed form": partial(elbo, closed_form=lambda q: _sampled_entropy(q)),
    "importance-weighted": bounds.importance_weighted,
    "doubly reparameterized": bounds.doubly_reparameterized,
    "vimco": bounds.vimco,
    "jackknife": bounds.jackknife,
    "renyi": partial(bounds.renyi, alpha=0.5),
    "wake": bounds.wake_model_loss,
    "wake, inference": bounds.wake_inference_loss,
}


def _sampled_entropy(q):
    base, carry, _ = source_of(q)
    draws = distributions.rsample(base, jax.random.key(0), 8)
    return (jax.vmap(carry)(draws)[1] - distributions.log_probs(base, draws)).mean()


@pytest.mark.parametrize("name", BOUNDS)
def test_no_bound_inverts_a_rounded_draw(name):
    """The draws are 1,000 + exp(-12), which float32 rounds to 1,000."""

    @jax.jit
    @jax.value_and_grad
    def value(loc):
        q = MeanFieldNormal(constraints.greater_than(1e3)).distribution({"loc": loc, "log_scale": jnp.zeros(1)})
        return BOUNDS[name](lambda z: -(z - 1e3), q, jax.random.key(0), 8)

    for each in jax.tree.leaves(value(jnp.full(1, -12.0))):
        assert np.isfinite(each).all()


def test_the_bound_of_a_draw_that_rounds_to_its_edge_is_right():
    q = MeanFieldNormal(constraints.greater_than(1e3)).distribution(
        {"loc": jnp.full(1, -3.0), "log_scale": jnp.zeros(1)}
    )
    # E[-(z - 1000)] is -exp(-3 + 1/2), and the entropy of log z's exponential is that of a normal, and its mean.
    exact = -np.exp(-2.5) + 0.5 * np.log(2 * np.pi * np.e) - 3
    logs = np.asarray(bounds.log_weights(lambda z: -(z - 1e3), q, jax.random.key(0), 50_000), float)
    assert logs.mean() == pytest.approx(exact, abs=5 * logs.std() / np.sqrt(len(logs)))


def test_a_simplex_has_the_elbo_of_quadrature(float64):
    """A logistic-normal share and what is left, under Dirichlet(2, 3)."""
    q = MeanFieldNormal(Support(constraints.simplex, (2,))).distribution(
        {"loc": jnp.array([0.3]), "log_scale": jnp.array([-0.5])}
    )
    found = elbo(dist.Dirichlet(jnp.array([2.0, 3.0])).log_prob, q, jax.random.key(0), 400_000)
    scale = np.exp(-0.5)

    def integrand(u):
        share = 1 / (1 + np.exp(-u))
        log_q = stats.norm(0.3, scale).logpdf(u) - np.log(share * (1 - share))
        return stats.norm(0.3, scale).pdf(u) * (stats.beta(2, 3).logpdf(share) - log_q)

    assert found == pytest.approx(integrate.quad(integrand, -8, 8)[0], abs=0.005)
