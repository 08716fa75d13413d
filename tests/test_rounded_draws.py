import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import integrate, special, stats

from vae_jax import bounds, distributions, elbo
from vae_jax.inference import Factor, FullRankNormal, MeanField, MeanFieldNormal, Support, fit
from vae_jax.rounded_draws import LARGEST_LOSS, on_edge, rounding_loss

TINY, EPS = np.finfo(np.float32).tiny, np.finfo(np.float32).eps


def lost_below(log_cdf, edge):
    """The integral of the distribution function's part below the edge, over log z: mass times mean excess (nats)."""
    return integrate.quad(lambda y: np.exp(log_cdf(y)), np.log(edge) - 4000, np.log(edge), limit=500)[0]


def gamma_log_cdf(concentration, rate):
    return lambda y: concentration * (y + np.log(rate)) - special.gammaln(concentration + 1)


def beta_log_cdf(power, other):
    return lambda y: power * y - np.log(power) - special.betaln(power, other)


LOSSES = {
    "gamma": (dist.Gamma(0.07, 2.0), lost_below(gamma_log_cdf(0.07, 2.0), TINY)),
    "beta": (dist.Beta(0.1, 0.3), lost_below(beta_log_cdf(0.1, 0.3), TINY) + lost_below(beta_log_cdf(0.3, 0.1), EPS)),
    "dirichlet": (dist.Dirichlet(jnp.array([0.1, 0.1, 2.0])), 2 * lost_below(beta_log_cdf(0.1, 2.1), TINY)),
    "weibull": (dist.Weibull(2.0, 0.1), lost_below(lambda y: 0.1 * (y - np.log(2.0)), TINY)),
    "vector": (dist.Gamma(jnp.full(2, 0.07), 2.0).to_event(1), 2 * lost_below(gamma_log_cdf(0.07, 2.0), TINY)),
    "normal": (dist.Normal(0.0, 1.0), 0.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_expected_log_distance_that_rounding_takes(name):
    q, expected = LOSSES[name]
    assert float(rounding_loss(q)) == pytest.approx(expected, rel=1e-3, abs=1e-30)


def test_a_gamma_s_mass_below_the_smallest_number_is_that_of_scipy():
    assert np.exp(gamma_log_cdf(0.07, 2.0)(np.log(TINY))) == pytest.approx(stats.gamma(0.07, scale=0.5).cdf(TINY))


INVALID = [
    (dist.Beta(0.05, 0.05), dist.Beta(0.1, 0.1)),
    (dist.Dirichlet(jnp.full(5, 0.01)), dist.Dirichlet(jnp.full(5, 0.02))),
    (dist.Gamma(0.05, 1.0), dist.Gamma(0.07, 1.0)),
    ({"rate": dist.Gamma(0.05, 1.0), "shift": dist.Normal(0.0, 1.0)}, None),
]


@pytest.mark.parametrize("bound", [elbo, bounds.importance_weighted, bounds.vimco])
@pytest.mark.parametrize(("q", "p"), INVALID)
def test_a_bound_that_rounding_invalidates_is_nan(q, p, bound):
    value = bound((lambda z: z["rate"]) if p is None else p.log_prob, q, jax.random.key(0), 100)
    assert np.isnan(value)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Beta(2.0, 0.5), dist.Beta(1.0, 1.0)),
        (dist.Gamma(0.1, 1.0), dist.Gamma(0.2, 1.0)),
        (dist.Dirichlet(jnp.array([0.3, 0.4, 2.0])), dist.Dirichlet(jnp.ones(3))),
    ],
)
def test_a_bound_whose_draws_are_resolved_is_right(q, p):
    logs = jax.jit(lambda key: bounds.log_weights(p.log_prob, q, key, 200_000))(jax.random.key(0))
    logs = np.asarray(logs, float)
    exact = -float(dist.kl_divergence(q, p))
    error = logs.std() / np.sqrt(len(logs))
    assert error < 0.02
    # The draws on an edge move it by less than the loss times the difference of the powers.
    assert logs.mean() == pytest.approx(exact, abs=5 * error + LARGEST_LOSS)


def test_the_gradient_is_nan_too():
    def bound(concentration):
        return elbo(lambda z: z, dist.Gamma(concentration, 1.0), jax.random.key(0), 100)

    value, gradient = jax.jit(jax.value_and_grad(bound))(0.03)
    assert np.isnan([value, gradient]).all()
    assert np.isfinite(jax.jit(jax.grad(bound))(0.3))


def test_no_draw_of_a_gamma_is_zero():
    draws = distributions.sample(dist.Gamma(0.05, 1.0), jax.random.key(0), 10_000)
    assert draws.min() == TINY


EDGES = {
    "positive": (dist.Gamma(1.0, 1.0), [0.0, TINY, 2 * TINY, 1.0], [True, True, False, False]),
    "unit": (dist.Beta(1.0, 1.0), [TINY, 0.5, 1 - 2 * EPS, 1 - EPS, 1.0], [True, False, False, True, True]),
    "simplex": (dist.Dirichlet(jnp.ones(2)), [[TINY, 1.0], [0.1, 0.9], [1e-9, 1.0]], [True, False, False]),
    "interval": (dist.Uniform(-1.0, 3.0), [-1.0, -0.5, 2.9, 3.0], [True, False, False, True]),
    "real": (dist.Normal(0.0, 1.0), [0.0, 1.0], [False, False]),
    "count": (dist.Poisson(1.0), [0, 1], [False, False]),
}


@pytest.mark.parametrize("name", EDGES)
def test_samples_on_an_edge_are_found(name):
    q, values, expected = EDGES[name]
    dtype = None if name == "count" else jnp.float32
    assert (
        on_edge(
            {"a": q, "b": dist.Normal(0.0, 1.0)}, {"a": jnp.asarray(values, dtype), "b": jnp.zeros(len(values))}
        ).tolist()
        == expected
    )


def test_edges_of_a_joint_distribution_are_found():
    family = FullRankNormal({"a": constraints.positive, "b": Support(constraints.greater_than(1e3), (2,))})
    q = family.distribution(family.init(jax.random.key(0)) | {"loc": jnp.array([0.0, 0.0, -20.0])})
    assert on_edge(q, distributions.sample(q, jax.random.key(0), 7)).all()


def test_a_fit_counts_them():
    options = {"num_steps": 20, "window": 10, "num_final_samples": 200}
    near = MeanFieldNormal(constraints.greater_than(1e3), start=jnp.array(1e3 + 1e-3), start_scale=3.0)
    fitted = fit(lambda z: -(z - 1e3), near, jax.random.key(0), **options)
    assert 0 < fitted.num_on_edge < 200
    inside = fit(lambda z: -(z**2), MeanFieldNormal(constraints.positive), jax.random.key(0), **options)
    assert inside.num_on_edge == 0


def test_a_fit_that_rounding_invalidates_says_so():
    family = MeanField(Factor(dist.Beta, {"concentration1": 0.05, "concentration0": 0.05}), spread=0.0)
    with pytest.raises(RuntimeError, match=r"in step 1 .*; if concentrations are below 0.1, whose draws are rou"):
        fit(dist.Beta(0.1, 0.1).log_prob, family, jax.random.key(0), num_steps=20, window=10, num_final_samples=100)
