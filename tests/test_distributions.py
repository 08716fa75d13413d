import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats
from scipy.integrate import quad

from monte_carlo import assert_unbiased
from vae_jax import distributions, elbo, pathwise, score_function
from vae_jax.distributions import LocationScalePositiveNormal, PositiveNormal


def truncated(loc, scale):
    return stats.truncnorm(-loc / scale, np.inf, loc=loc, scale=scale)


@partial(jax.jit, static_argnums=3)
def positive_draws(loc, scale, key, number):
    return PositiveNormal(loc, scale).sample(key, (number,))


@pytest.mark.parametrize(("loc", "scale"), [(5.0, 0.5), (1.0, 0.2), (0.3, 1.0), (-1.0, 0.7)])
def test_positive_normal_is_the_truncated_normal(loc, scale, float64):
    z = jnp.linspace(1e-3, loc + 5 * scale, 50)
    np.testing.assert_allclose(PositiveNormal(loc, scale).log_prob(z), truncated(loc, scale).logpdf(z), rtol=1e-10)
    total, _ = quad(lambda z: np.exp(PositiveNormal(loc, scale).log_prob(z)), 0, max(loc, 0) + 12 * scale)
    assert total == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(("loc", "scale"), [(1.0, 0.2), (0.3, 1.0), (-1.0, 0.7)])
def test_the_score_of_a_positive_normal_is_the_slope_of_its_density(loc, scale, float64):
    z, step = np.linspace(1e-3, loc + 5 * scale, 50), 1e-5
    scores = jax.jacfwd(lambda loc, scale: PositiveNormal(loc, scale).log_prob(jnp.asarray(z)), (0, 1))(loc, scale)
    by_loc = truncated(loc + step, scale).logpdf(z) - truncated(loc - step, scale).logpdf(z)
    by_scale = truncated(loc, scale + step).logpdf(z) - truncated(loc, scale - step).logpdf(z)
    np.testing.assert_allclose(scores[0], by_loc / (2 * step), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scores[1], by_scale / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("loc", "scale"), [(5.0, 0.5), (1.0, 0.2), (0.3, 1.0), (-1.0, 0.7), (-2.5, 1.0)])
def test_positive_normal_draws_from_its_density(loc, scale):
    draws = np.asarray(positive_draws(loc, scale, jax.random.key(0), 200_000), float)
    assert (draws > 0).all()
    target = truncated(loc, scale)
    error = target.std() / np.sqrt(len(draws))
    assert_unbiased(draws.mean(), error, target.mean(), resolution=0.05 * scale)
    assert stats.kstest(draws, target.cdf).pvalue > 1e-9


@pytest.mark.parametrize("number", [2**20, pytest.param(2**24, marks=pytest.mark.slow)])
def test_positive_normal_never_reaches_the_edge_of_its_support(number):
    draws = positive_draws(1.0, 0.2, jax.random.key(1), number)
    # One draw in 2^24 falls below v where the mass under v is that small.
    assert np.min(draws) > 1e-3
    assert np.isfinite(draws).all()


@pytest.mark.parametrize(("loc", "scale"), [(5.0, 0.5), (1.0, 0.2), (0.3, 1.0), (-2.5, 1.0)])
def test_positive_normal_follows_its_quantiles(loc, scale, float64):
    """dz/dtheta = -(dF/dtheta) / p(z)."""

    def draw(loc, scale):
        return PositiveNormal(loc, scale).rsample(jax.random.key(2), (100,))

    draws, paths, step = draw(loc, scale), jax.jacobian(draw, argnums=(0, 1))(loc, scale), 1e-5
    by_loc = truncated(loc + step, scale).cdf(draws) - truncated(loc - step, scale).cdf(draws)
    by_scale = truncated(loc, scale + step).cdf(draws) - truncated(loc, scale - step).cdf(draws)
    for path, slope in zip(paths, (by_loc, by_scale), strict=True):
        expected = -slope / (2 * step) / truncated(loc, scale).pdf(draws)
        np.testing.assert_allclose(path, expected, rtol=1e-6, atol=1e-6)


TANH_SLOPES = {0.5: (0.388137, 0.386523), 1.0: (0.473178, 0.029341), 1.5: (0.354394, -0.175168)}
"""d/dloc and d/dscale of E[tanh(z)^2] at scale 0.5 by loc, from quadrature against SciPy's truncated normal."""


@pytest.mark.parametrize("loc", TANH_SLOPES)
def test_gradients_along_a_positive_normal_s_path_are_unbiased(loc):
    @partial(jax.jit, static_argnums=0)
    def gradients(family):
        def value(params, key):
            return pathwise(lambda z, q: jnp.tanh(z) ** 2, family(*params), key, 1_000)

        return jax.lax.map(
            lambda key: jnp.stack(jax.grad(value)((loc, 0.5), key)), jax.random.split(jax.random.key(0), 400)
        )

    found = np.asarray(gradients(PositiveNormal), float)
    for gradient, exact in zip(found.T, TANH_SLOPES[loc], strict=True):
        assert_unbiased(gradient.mean(), gradient.std() / np.sqrt(len(gradient)), exact, resolution=0.01)
    biased = np.asarray(gradients(LocationScalePositiveNormal), float).mean(axis=0)
    assert (abs(biased - TANH_SLOPES[loc]) > 0.006).all()


def test_the_path_of_a_positive_normal_has_its_second_derivatives(float64):
    def mean(loc):
        return PositiveNormal(loc, 1.0).rsample(jax.random.key(0), (200_000,)).mean()

    step = 1e-3
    expected = (truncated(step, 1.0).mean() - 2 * truncated(0.0, 1.0).mean() + truncated(-step, 1.0).mean()) / step**2
    assert jax.jit(jax.grad(jax.grad(mean)))(0.0) == pytest.approx(expected, rel=0.02)


def test_the_location_scale_path_ignores_the_truncation(float64):
    def draw(loc, scale):
        return LocationScalePositiveNormal(loc, scale).rsample(jax.random.key(2), (100,))

    np.testing.assert_array_equal(draw(1.0, 0.2), PositiveNormal(1.0, 0.2).rsample(jax.random.key(2), (100,)))
    d_loc, d_scale = jax.jit(jax.jacobian(draw, argnums=(0, 1)))(1.0, 0.2)
    np.testing.assert_allclose(d_loc, 1)
    np.testing.assert_allclose(d_scale, (np.asarray(jax.jit(draw)(1.0, 0.2)) - 1.0) / 0.2, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.0, -0.5, np.nan])
def test_positive_normal_of_an_invalid_scale_is_nan_at_run_time_and_refused_before(scale):
    def weight(scale):
        q = PositiveNormal(1.0, scale)
        return q.log_prob(q.rsample(jax.random.key(0)))

    assert not np.isfinite(jax.jit(weight)(scale))
    with pytest.raises(ValueError, match="scale"):
        PositiveNormal(1.0, scale, validate_args=True)


@pytest.mark.parametrize("loc", [-3.1, -5.0, -20.0])
def test_positive_normal_far_below_zero_is_nan_rather_than_coarse(loc):
    q = PositiveNormal(loc, 1.0)
    assert np.isnan(q.rsample(jax.random.key(0), (10,))).all()
    assert np.isnan(q.log_prob(0.1))


@pytest.mark.parametrize("loc", [-2.9, *(pytest.param(loc, marks=pytest.mark.slow) for loc in (-1.0, 0.0))])
def test_positive_normal_draws_stay_positive_where_rounding_could_take_them_over(loc):
    draws = np.asarray(positive_draws(loc, 1.0, jax.random.key(0), 2**22))
    assert (draws > 0).all()
    assert np.unique(draws).size > 10_000


@pytest.mark.parametrize("q", [dist.Normal(0.0, 1.0), PositiveNormal(1.0, 0.2), dist.LogNormal(0.0, 1.0)])
def test_fewer_samples_are_the_first_of_more(q):
    draw = jax.jit(lambda key: [distributions.sample(q, key, size) for size in (7, 100)])
    few, many = draw(jax.random.key(3))
    np.testing.assert_allclose(few, many[:7], rtol=1e-6)


def test_leaves_draw_independently_and_densities_add():
    q = {"a": dist.Normal(0.0, 1.0), "b": (dist.Normal(0.0, 1.0), dist.Gamma(2.0, 1.0))}
    draws = jax.device_get(jax.jit(lambda key: distributions.sample(q, key, 50_000))(jax.random.key(0)))
    correlation = np.corrcoef(draws["a"], draws["b"][0])[0, 1]
    assert abs(correlation) < 6 / np.sqrt(50_000)
    one = jax.tree.map(lambda x: x[0], draws)

    @jax.jit
    def densities(one):
        leaves = [q["a"].log_prob(one["a"]), q["b"][0].log_prob(one["b"][0]), q["b"][1].log_prob(one["b"][1])]
        return distributions.log_prob(q, one), leaves

    together, leaves = densities(one)
    assert together == pytest.approx(float(sum(leaves)))
    assert distributions.entropy(q["a"]) == pytest.approx(0.5 * np.log(2 * np.pi * np.e))


def test_sample_carries_no_gradient_and_rsample_does():
    def total(draw):
        return lambda loc: draw(dist.Normal(loc, 1.0), jax.random.key(0), 5).sum()

    assert jax.jit(jax.grad(total(distributions.sample)))(0.0) == 0
    assert jax.jit(jax.grad(total(distributions.rsample)))(0.0) == 5


MISUSES = [
    (ValueError, r"num_samples must be at least 1, got 0", dist.Normal(0.0, 1.0), 0),
    (ValueError, r"q\['z'\] must have an empty batch shape, got \(3,\)", {"z": dist.Normal(jnp.zeros(3), 1.0)}, 4),
    (TypeError, r"q\['z'\] must be a distribution, got float", {"z": 1.0}, 4),
    (TypeError, r"q\['z'\] must be a distribution, got DistributionMeta", {"z": dist.Normal}, 4),
    (ValueError, "q must hold at least one distribution", {}, 4),
    (TypeError, r"q\['b'\] is a Bernoulli.*use score_function", {"b": dist.Bernoulli(probs=0.3)}, 4),
]


@pytest.mark.parametrize(("error", "message", "q", "num_samples"), MISUSES)
def test_misuse_is_refused(error, message, q, num_samples):
    with pytest.raises(error, match=message):
        distributions.rsample(q, jax.random.key(0), num_samples)


def test_parameters_without_a_stated_constraint_are_not_free():
    assert not distributions.has_free_parameters(dist.Delta(1.0))


IMPOSSIBLE = [
    ("probs", lambda probs: dist.Bernoulli(probs=probs), [1.5, -0.1, np.nan]),
    ("probs", lambda probs: dist.Bernoulli(probs=jnp.stack([0.5 * probs / probs, probs])).to_event(1), [1.5, -0.1]),
    ("probs", lambda probs: dist.Categorical(probs=jnp.stack([probs, 1 - probs])), [1.5, -0.1]),
    ("scale", lambda scale: dist.Normal(0.0, scale), [0.0, -1.0, np.nan]),
    ("scale", lambda scale: dist.Normal(jnp.zeros(2), jnp.stack([1 + 0 * scale, scale])).to_event(1), [0.0, -1.0]),
    ("rate", lambda rate: dist.Gamma(2.0, rate), [0.0, -1.0]),
]
FUNCTIONS = {
    "sample": lambda q: distributions.sample(q, jax.random.key(0), 4).sum(),
    "log_prob": lambda q: distributions.log_prob(q, jnp.ones(q.event_shape, int)),
    "score_function": lambda q: score_function(lambda z, _: z.sum().astype(float), q, jax.random.key(0), 4),
    "elbo": lambda q: elbo(lambda z: z.sum().astype(float), q, jax.random.key(0), 4, estimator=score_function),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("name", "q", "values"), IMPOSSIBLE)
def test_an_impossible_parameter_of_q_is_refused_by_its_name(name, q, values, function):
    """In a call, and in the gradient by the parameter. A compiled function cannot look at it."""

    def called(value):
        return FUNCTIONS[function](q(value)).astype(float)

    with jax.numpy_rank_promotion("allow"):
        assert np.isfinite(called(jnp.float32(0.5)))
        for value, call in itertools.product(values, (called, jax.grad(called))):
            with pytest.raises(ValueError, match=f"invalid {name} parameter"):
                call(jnp.float32(value))


@pytest.mark.parametrize(
    "q",
    [
        lambda logits: dist.Bernoulli(logits=logits).to_event(1),
        lambda logits: {"a": dist.Bernoulli(logits=logits[0]), "b": dist.Bernoulli(logits=logits[1:]).to_event(1)},
    ],
    ids=["vector", "pytree"],
)
def test_the_score_of_a_bernoulli_is_right_at_a_logit_of_zero(q):
    logits, outcome = np.float32([0.0, 0.0, 1.0]), np.array([0, 1, 1])
    value = outcome if not isinstance(q(logits), dict) else {"a": outcome[0], "b": outcome[1:]}
    log_prob, score = jax.jit(jax.value_and_grad(lambda logits: distributions.log_prob(q(logits), value)))(logits)
    np.testing.assert_allclose(score, outcome - special.expit(logits), rtol=1e-6)
    expected = np.where(outcome, -np.logaddexp(0, -np.asarray(logits)), -np.logaddexp(0, np.asarray(logits))).sum()
    assert log_prob == pytest.approx(expected, rel=1e-6)
