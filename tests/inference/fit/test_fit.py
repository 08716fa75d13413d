import math
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax.tree_util import Partial
from numpyro.distributions import constraints
from scipy import stats
from scipy.optimize import minimize

from monte_carlo import assert_unbiased, is_biased
from vae_jax import bounds, distributions, estimators
from vae_jax.cli.regress.poisson_regression import PoissonRegression
from vae_jax.distributions import PositiveNormal
from vae_jax.inference.fit.coupling_flow import CouplingFlow
from vae_jax.inference.fit.elbo_plateau import ElboPlateau, rise_of, window_mean
from vae_jax.inference.fit.families import Factor, FullRankNormal, LowRankNormal, MeanField, MeanFieldNormal
from vae_jax.inference.fit.fit import fit
from vae_jax.inference.fit.minibatches import Minibatched
from vae_jax.inference.latent_space import LatentSpace, Support
from vae_jax.problems import PoissonGamma
from vae_jax.problems.poisson_gamma.poisson_gamma_posterior import exact_marginals, exact_posterior

MEAN = np.array([1.0, -2.0, 0.5])
PRECISION = np.array([[2.0, 0.8, 0.0], [0.8, 1.5, -0.5], [0.0, -0.5, 1.0]])
COVARIANCE = np.linalg.inv(PRECISION)
REAL = Support(constraints.real, (3,))

DECAYING = optax.adam(optax.cosine_decay_schedule(0.03, 3000))
quick = partial(fit, optimizer=DECAYING, num_steps=3000, window=500, num_samples=8, num_final_samples=1000)


def log_normal_target(z):
    """A normal in three dimensions, normalised."""
    difference = z - MEAN
    return (
        -0.5 * difference @ PRECISION @ difference
        - 1.5 * math.log(2 * math.pi)
        + 0.5 * math.log(np.linalg.det(PRECISION))
    )


def test_mean_field_reaches_the_diagonal_of_the_precision():
    fitted = quick(log_normal_target, MeanFieldNormal(REAL), jax.random.key(0))
    np.testing.assert_allclose(fitted.mean(), MEAN, atol=0.03)
    scale = np.exp(fitted.params["log_scale"])
    np.testing.assert_allclose(scale, np.diag(PRECISION) ** -0.5, rtol=0.03)
    # The gap is known too: half the log of how much smaller the determinant is.
    gap = 0.5 * np.log(np.diag(PRECISION).prod() / np.linalg.det(PRECISION))
    assert fitted.elbo == pytest.approx(-gap, abs=0.01 + 5 * fitted.elbo_se)
    # Estimated again, from other samples than those that chose the restart.
    assert abs(fitted.elbo - fitted.restart_elbos[0]) > 1e-4


@pytest.mark.parametrize(
    ("estimator", "tolerance"), [(estimators.pathwise, 0.08), (estimators.sticking_the_landing, 0.005)]
)
def test_full_rank_reaches_the_exact_posterior(estimator, tolerance):
    fitted = quick(log_normal_target, FullRankNormal(REAL), jax.random.key(0), estimator=estimator)
    np.testing.assert_allclose(fitted.mean(), MEAN, atol=0.02)
    np.testing.assert_allclose(fitted.posterior.base.covariance_matrix, COVARIANCE, atol=tolerance)
    assert fitted.elbo == pytest.approx(0.0, abs=5e-3)
    assert fitted.elbo_se < 5e-3
    assert fitted.elbo_history.shape == (3000,)
    assert fitted.window_means.shape == fitted.window_mean_ses.shape == (6,)
    assert fitted.log_prob(jnp.asarray(MEAN)) == pytest.approx(float(log_normal_target(MEAN)), abs=0.08)


@pytest.mark.slow
def test_low_rank_reaches_a_low_rank_posterior():
    factor, scale = np.array([1.5, -1.0, 0.5, 2.0]), np.array([0.5, 1.0, 0.3, 0.8])
    covariance = np.diag(scale**2) + np.outer(factor, factor)
    loc, precision = np.array([1.0, 0.0, -1.0, 2.0]), np.linalg.inv(covariance)
    log_constant = -0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1]

    def log_density(z):
        return log_constant - 0.5 * (z - loc) @ precision @ (z - loc)

    family = LowRankNormal(Support(constraints.real, (4,)), rank=1)
    fitted = quick(log_density, family, jax.random.key(0), estimator=estimators.sticking_the_landing)
    np.testing.assert_allclose(fitted.mean(), loc, atol=0.03)
    np.testing.assert_allclose(fitted.posterior.base.covariance_matrix, covariance, atol=0.1)
    assert fitted.elbo == pytest.approx(0.0, abs=5e-3)
    # A family without the dependence cannot: the same gap as above.
    assert np.log(np.diag(precision)).sum() + np.linalg.slogdet(covariance)[1] > 2 * 0.5


@pytest.mark.slow
def test_a_flow_bends_to_what_no_normal_fits():
    def banana(z):
        return dist.Normal(0, 1).log_prob(z[0]) + dist.Normal(z[0] ** 2 / 2, 0.5).log_prob(z[1])

    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    weights = np.outer(weights, weights) / weights.sum() ** 2

    def minus_elbo_of_normal(params):
        loc, (log_scale, slope, other_log_scale) = params[:2], params[2:]
        z = loc[0] + np.exp(log_scale) * nodes[:, None]
        other = loc[1] + slope * nodes[:, None] + np.exp(other_log_scale) * nodes[None]
        log_p = stats.norm.logpdf(z) + stats.norm.logpdf(other, z**2 / 2, 0.5)
        return -(weights * log_p).sum() - log_scale - other_log_scale - 1 - math.log(2 * math.pi)

    assert minimize(minus_elbo_of_normal, np.zeros(5)).fun > 0.3
    flow = quick(banana, CouplingFlow(Support(constraints.real, (2,)), num_layers=3, width=8), jax.random.key(0))
    assert -0.1 < flow.elbo < 5 * flow.elbo_se
    assert flow.sample(jax.random.key(1), 5).shape == (5, 2)
    with pytest.raises(TypeError, match="must have a mean in closed form, got Pushforward"):
        flow.mean()


COUNTS = (3, 1, 4, 1, 5)
CONJUGATE = dist.Gamma(2.0 + sum(COUNTS), 1.0 + len(COUNTS))


def gamma_poisson(rate):
    return dist.Gamma(2.0, 1.0).log_prob(rate) + dist.Poisson(rate).log_prob(jnp.array(COUNTS)).sum()


LOG_EVIDENCE = float(gamma_poisson(jnp.array(2.0)) - CONJUGATE.log_prob(2.0))


@pytest.mark.slow
def test_a_family_that_holds_the_conjugate_posterior_finds_it():
    fitted = quick(gamma_poisson, MeanField(dist.Gamma), jax.random.key(0), num_restarts=2)
    assert fitted.posterior.concentration == pytest.approx(16.0, rel=0.05)
    assert fitted.posterior.rate == pytest.approx(6.0, rel=0.05)
    assert fitted.mean() == pytest.approx(16 / 6, rel=0.01)
    assert fitted.elbo == pytest.approx(LOG_EVIDENCE, abs=3e-3)


def test_a_normal_on_the_logarithm_counts_the_jacobian():
    # E_q[log p] is linear in E z = exp(loc + scale^2 / 2) and loc, so the optimum is in closed form.
    fitted = quick(gamma_poisson, MeanFieldNormal(constraints.positive), jax.random.key(0))
    scale = math.sqrt(1 / 16)
    assert np.exp(fitted.params["log_scale"][0]) == pytest.approx(scale, rel=0.06)
    assert fitted.mean() == pytest.approx(16 / 6, rel=0.02)
    assert LOG_EVIDENCE - 0.05 < fitted.elbo < LOG_EVIDENCE + 5 * fitted.elbo_se


SUPPORTS = {
    "positive": Support(constraints.positive),
    "vector": Support(constraints.positive, (2,)),
    "interval": Support(constraints.interval(-1.0, 3.0), (2,)),
    "above": Support(constraints.greater_than(2.0)),
    "simplex": Support(constraints.simplex, (3,)),
    "cholesky": Support(constraints.corr_cholesky, (2, 2)),
    "real_vector": Support(constraints.real_vector, (2,)),
    "rows": Support(constraints.ordered_vector, (2, 3)),
}


FAMILIES = [MeanFieldNormal, FullRankNormal, LowRankNormal, CouplingFlow]
ESTIMATORS = [estimators.sticking_the_landing, estimators.score_function]
FEW = ("vector", "simplex")
IN_SUPPORTS = [(MeanFieldNormal, estimators.sticking_the_landing, tuple(SUPPORTS))]
IN_SUPPORTS += [(FullRankNormal, estimators.sticking_the_landing, FEW), (LowRankNormal, estimators.score_function, FEW)]
IN_SUPPORTS += [
    pytest.param(family, estimator, tuple(SUPPORTS), marks=pytest.mark.slow)
    for family, estimator in list(product(FAMILIES, ESTIMATORS))[1:]
]


@pytest.mark.parametrize(("family", "estimator", "names"), IN_SUPPORTS)
def test_every_family_lives_in_the_supports(family, estimator, names):
    supports = {name: SUPPORTS[name] for name in names}
    made = family(supports)

    def log_joint(z):
        return -sum((z[name] ** 2).sum() for name in names)

    def loss(params):
        return bounds.elbo(log_joint, made.distribution(params), jax.random.key(2), 4, estimator=estimator)

    @jax.jit
    def drawn(key):
        params = made.init(key)
        draws = distributions.sample(made.distribution(params), jax.random.key(1), 4)
        are_inside = {name: support.constraint(draws[name]) for name, support in supports.items()}
        return draws, are_inside, jax.grad(loss)(params)

    draws, are_inside, gradient = drawn(jax.random.key(0))
    for name, support in supports.items():
        assert draws[name].shape == (4, *support.shape)
        assert np.all(are_inside[name])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient) if leaf.size)


def test_the_density_of_every_family_is_that_of_the_transformed_vector(float64):
    space = LatentSpace(SUPPORTS)
    vector = np.random.default_rng(0).normal(size=space.size)
    there_and_back = jax.jit(lambda vector: space.unconstrain(space.constrain(vector)))
    np.testing.assert_allclose(there_and_back(vector), vector, atol=1e-9)
    family = FullRankNormal({"u": constraints.positive, "w": Support(constraints.interval(0.0, 2.0))}, spread=0.0)

    def density(u, w):
        q = family.distribution(family.init(jax.random.key(0)))
        return jnp.exp(q.log_prob({"u": u, "w": w}))

    u, w = np.linspace(0.3, 3.0, 401), np.linspace(0.2, 1.8, 401)
    values = jax.jit(jax.vmap(jax.vmap(density, (None, 0)), (0, None)))(u, w)
    assert np.trapezoid(np.trapezoid(values, w), u) == pytest.approx(1.0, abs=1e-6)


def test_the_estimate_from_a_batch_is_unbiased_and_needs_the_factor():
    data = jnp.arange(10.0) ** 2 / 10

    def log_prior(z):
        return -0.5 * z**2

    def log_likelihood(z, x):
        return -0.5 * (x - z) ** 2

    target = Minibatched(log_prior, log_likelihood, data, batch_size=3)
    point = jnp.array(0.7)
    exact = [float(target(point)), float(jax.grad(target)(point))]

    def of_batch(key):
        return jnp.stack(jax.value_and_grad(target.of_batch(key))(point))

    def unscaled(key):
        batch = data[jax.random.randint(key, (3,), 0, 10)]
        return jnp.stack(jax.value_and_grad(lambda z: log_prior(z) + log_likelihood(z, batch).sum())(point))

    keys = jax.random.split(jax.random.key(0), 100_000)
    for draw, right in ((of_batch, True), (unscaled, False)):
        draws = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
        mean, error = draws.mean(0), draws.std(0) / math.sqrt(len(draws))
        if right:
            assert_unbiased(mean, error, exact, resolution=np.array([2.5, 1.0]))
        else:
            assert is_biased(mean, error, exact)
    whole = Minibatched(log_prior, log_likelihood, data, batch_size=10)
    assert whole.of_batch(jax.random.key(0))(point) == exact[0]


def test_batches_lead_to_the_posterior_of_all_data():
    data = jax.random.normal(jax.random.key(5), (200,)) + 2
    target = Minibatched(
        lambda z: dist.Normal(0, 1).log_prob(z), lambda z, x: dist.Normal(z, 1).log_prob(x), data, batch_size=20
    )
    fitted = quick(target, MeanFieldNormal(constraints.real, spread=0.0), jax.random.key(0), num_restarts=4)
    scale = 201**-0.5
    means = np.asarray(fitted.restart_params["loc"])[:, 0]
    np.testing.assert_allclose(means, float(data.sum() / 201), atol=0.5 * scale)
    np.testing.assert_allclose(np.exp(fitted.restart_params["log_scale"]), scale, rtol=0.15)


def test_restarts_keep_the_best():
    def two_modes(z):
        return jnp.logaddexp(dist.Normal(-4.0, 0.5).log_prob(z) - 3, dist.Normal(4.0, 0.5).log_prob(z))

    family = MeanFieldNormal(constraints.real, spread=3.0)
    fitted = quick(two_modes, family, jax.random.key(1), num_restarts=8)
    assert fitted.restart_elbos.shape == (8,)
    np.testing.assert_allclose(np.sort(fitted.restart_elbos)[[0, -1]], [-3.0, 0.0], atol=0.05)
    assert fitted.best_restart == np.argmax(fitted.restart_elbos)
    assert fitted.posterior.loc == pytest.approx(4.0, abs=0.1)
    assert fitted.elbo == pytest.approx(0.0, abs=0.05)


MEAN_FIELD_MEANS = [4.6463, 0.9116]
"""E[u] and E[v] of the Poisson-Gamma model."""


def test_the_mean_field_optimum_of_poisson_gamma():
    problem = PoissonGamma()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()

    def minus_elbo(params):
        # Zero is seven scales away: the truncation is below the rounding.
        (loc_u, scale_u), (loc_v, scale_v) = params[:2], params[2:]
        u, v = loc_u + scale_u * nodes, loc_v + scale_v * nodes
        inside = weights[u > 0], weights[v > 0]
        mean_logs = [(w * np.log(x[x > 0])).sum() for w, x in zip(inside, (u, v), strict=True)]
        expected = problem.power_u * mean_logs[0] + problem.power_v * mean_logs[1]
        expected -= problem.prior_u.rate * loc_u + problem.prior_v.rate * loc_v + len(problem.counts) * loc_u * loc_v
        return -(expected + math.log(scale_u) + math.log(scale_v))

    optimum = minimize(
        minus_elbo, (5.0, 0.5, 1.0, 0.2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}
    ).x
    np.testing.assert_allclose(optimum, [4.6463, 0.6628, 0.9116, 0.1314], atol=6e-5)
    np.testing.assert_allclose(optimum[[0, 2]], MEAN_FIELD_MEANS, rtol=1e-4)
    factors = {
        "u": Factor(PositiveNormal, {"loc": 5.0, "scale": 1.0}),
        "v": Factor(PositiveNormal, {"loc": 1.0, "scale": 0.2}),
    }
    fitted = quick(problem.log_joint, MeanField(factors), jax.random.key(0), num_samples=64)
    reached = [float(getattr(fitted.posterior[n].base_dist, f)) for n in "uv" for f in ("loc", "scale")]
    np.testing.assert_allclose(reached, optimum, rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("constructor", [dist.LogNormal, dist.Gamma])
def test_other_factors_of_poisson_gamma_have_the_same_means(constructor):
    family = MeanField({"u": constructor, "v": constructor})
    fitted = quick(PoissonGamma().log_joint, family, jax.random.key(0), num_samples=16)
    np.testing.assert_allclose([fitted.mean()["u"], fitted.mean()["v"]], MEAN_FIELD_MEANS, rtol=0.01)


def test_the_exact_posterior_of_poisson_gamma():
    problem = PoissonGamma()
    posterior = exact_posterior(problem)
    assert posterior.mean_u == pytest.approx(4.864, abs=1e-3)
    assert posterior.mean_v == pytest.approx(0.966, abs=1e-3)
    u, v = np.linspace(1e-3, 40, 1500), np.linspace(1e-3, 8, 1500)
    of_row = jax.vmap(lambda u, v: problem.log_joint({"u": u, "v": v}), (None, 0))
    logs = np.asarray(jax.jit(jax.vmap(of_row, (0, None)))(u.astype(np.float32), v.astype(np.float32)), float)
    density = np.exp(logs - posterior.log_evidence)

    def integrate(f):
        return np.trapezoid(np.trapezoid(f, v), u)

    assert integrate(density) == pytest.approx(1, abs=1e-5)
    assert integrate(density * u[:, None]) == pytest.approx(posterior.mean_u, rel=1e-4)
    covariance = integrate(density * u[:, None] * v) - posterior.mean_u * posterior.mean_v
    assert covariance / (posterior.std_u * posterior.std_v) == pytest.approx(posterior.correlation, rel=1e-3)
    for name, (points, density) in exact_marginals(problem).items():
        assert np.trapezoid(density * points, points) == pytest.approx(getattr(posterior, f"mean_{name}"), rel=1e-4)


def test_the_rule_does_not_stop_while_the_elbo_rises():
    rule = ElboPlateau(tolerance=0.0)
    noise = jax.random.normal(jax.random.key(0), (400, 2, 100))

    def share_of_flat(rise):
        trend = jnp.broadcast_to(rise * jnp.arange(200.0).reshape(2, 100) / 100, noise.shape)
        windows = jax.vmap(lambda pair: rule.flat(window_mean(pair[0]), window_mean(pair[1])))
        return float(windows(noise + trend).mean())

    # The error of the difference of two means of 100 is 0.141.
    assert share_of_flat(0.0) == pytest.approx(0.84, abs=0.08)
    assert share_of_flat(3 * 0.141) < 0.08
    assert share_of_flat(1.0) == 0.0


def test_the_standard_error_of_a_window_does_not_count_a_trend():
    noise = jax.random.normal(jax.random.key(1), (2000,))
    trending = window_mean(noise + 0.02 * jnp.arange(2000.0))
    assert trending.mean_se == pytest.approx(2000**-0.5, rel=0.1)
    rise, error = rise_of(window_mean(noise[:1000]), window_mean(noise[1000:]))
    assert abs(rise) < 5 * error


def test_a_fit_stops_early_and_a_slow_one_does_not():
    options = {"num_steps": 4000, "window": 200, "num_samples": 8, "num_final_samples": 100}
    family = FullRankNormal(REAL)
    options |= {"optimizer": optax.adam(0.03), "stopping": ElboPlateau()}

    def log_joint(shift, z):
        return log_normal_target(z - shift)

    stopped = fit(Partial(log_joint, jnp.zeros(())), family, jax.random.key(0), **options)
    assert stopped.converged
    assert 400 <= stopped.num_steps < 4000
    assert stopped.elbo_history.shape == (stopped.num_steps,)
    assert stopped.elbo > -0.05
    slow = fit(Partial(log_joint, jnp.array(500.0)), family, jax.random.key(0), **options)
    assert slow.num_steps == 4000
    assert not slow.converged
    assert slow.rise > 5 * slow.rise_se > 0


def test_flat_windows_must_be_in_a_row_to_stop_a_fit():
    """One window of each three has steps. Of the two without, the second is as high as the one before it."""
    window, num_windows = 20, 12
    optimizer = optax.sgd(lambda step: jnp.where(step // window % 3 == 0, 0.005, 0.0))
    fitted = fit(
        lambda z: -((z - 30.0) ** 2) / 2,
        MeanFieldNormal(Support(constraints.real)),
        jax.random.key(0),
        optimizer=optimizer,
        num_steps=window * num_windows,
        window=window,
        stopping=ElboPlateau(tolerance=5.0),
        num_final_samples=100,
    )
    assert fitted.num_steps == window * num_windows
    assert not fitted.converged
    rises = np.diff(fitted.window_means)
    is_flat = np.abs(rises) < 5
    np.testing.assert_array_equal(is_flat, [number % 3 == 2 for number in range(1, num_windows)])


def test_a_second_call_traces_nothing():
    num_traces = 0

    def log_joint(center, z):
        nonlocal num_traces
        num_traces += 1
        return -0.5 * (z - center) ** 2

    family, optimizer = MeanFieldNormal(constraints.real), optax.adam(0.05)
    options = {"optimizer": optimizer, "num_steps": 1000, "window": 500, "num_final_samples": 100}
    first = fit(Partial(log_joint, jnp.array(1.0)), family, jax.random.key(0), **options)
    traced = num_traces
    second = fit(Partial(log_joint, jnp.array(2.0)), family, jax.random.key(1), **options)
    assert num_traces == traced > 0
    assert float(second.mean()) - float(first.mean()) == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "score_function+leave_one_out",
        "pathwise+antithetic_pairs",
        pytest.param("closed_form_entropy", marks=pytest.mark.slow),
        pytest.param("inverse_cdf", marks=pytest.mark.slow),
    ],
)
def test_other_estimators_fit_as_well(name):
    fitted = quick(log_normal_target, MeanFieldNormal(REAL), jax.random.key(0), estimator=estimators.ESTIMATORS[name])
    np.testing.assert_allclose(fitted.mean(), MEAN, atol=0.1)


def test_coefficients_on_their_own_scale_give_the_same_means():
    generator = np.random.default_rng(0)
    predictors = generator.normal(5, [2.0, 30.0], (50, 2))
    regression = PoissonRegression(("a", "b"), predictors, generator.poisson(3.0, 50).astype(float))
    coefficients = np.array([1.0, 0.3, -0.2])
    own = regression.on_own_scale(coefficients)
    np.testing.assert_allclose(regression.design(predictors) @ coefficients, own[0] + predictors @ own[1:], rtol=1e-10)


REAL_SCALAR = constraints.real


def fit_with(**options):
    return fit(lambda z: -0.5 * z**2, MeanFieldNormal(REAL_SCALAR), jax.random.key(0), **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fit_with(num_steps=1234), ValueError, "num_steps must be a multiple of the window of 500.*use 1500"),
        (lambda: fit_with(num_steps=500), ValueError, "two at least, got 500: use 1000"),
        (lambda: fit_with(window=1), ValueError, "window must be at least 2"),
        (lambda: fit_with(num_restarts=0), ValueError, "num_restarts must be at least 1, got 0"),
        (lambda: fit_with(num_samples=0), ValueError, "num_samples must be at least 1"),
        (
            lambda: fit(lambda z: z, MeanFieldNormal, jax.random.key(0)),
            TypeError,
            "family must have init and distribution",
        ),
        (
            lambda: jax.jit(lambda key: fit(lambda z: z, MeanFieldNormal(REAL_SCALAR), key).elbo)(jax.random.key(0)),
            TypeError,
            "fit must be called outside of jit",
        ),
        (
            lambda: fit(lambda z: jnp.log(z), MeanFieldNormal(REAL_SCALAR), jax.random.key(0), num_steps=1000),
            RuntimeError,
            "fit must keep the ELBO finite, got nan in step 1",
        ),
        (lambda: ElboPlateau(num_errors=-1.0), ValueError, "num_errors must be 0 or more"),
        (lambda: ElboPlateau(patience=0), ValueError, "patience must be at least 1"),
        (lambda: MeanFieldNormal({}), ValueError, "supports must hold at least one latent"),
        (lambda: MeanFieldNormal({"n": constraints.boolean}), TypeError, r"supports\['n'\] must be continuous"),
        (lambda: MeanFieldNormal({"n": 3.0}), TypeError, r"supports\['n'\] must be a constraint, got float"),
        (lambda: MeanFieldNormal(constraints.simplex), ValueError, "must have a shape of 1 dimensions"),
        (lambda: MeanFieldNormal(REAL_SCALAR, start_scale=0.0), ValueError, "start_scale must be positive"),
        (
            lambda: MeanFieldNormal({"u": constraints.positive}, start={"u": -1.0}),
            ValueError,
            "start must lie inside of the supports",
        ),
        (lambda: LowRankNormal(REAL, rank=4), ValueError, "rank must be from 1 to the 3 numbers, got 4"),
        (lambda: CouplingFlow(REAL_SCALAR), ValueError, "must have 2 numbers to couple at least, got 1"),
        (lambda: MeanField({"u": int}), TypeError, r"factors\['u'\] must be a distribution's constructor"),
        (lambda: MeanField(dist.MultivariateNormal), ValueError, "must have a start for loc"),
        (lambda: MeanField(Factor(dist.Gamma, {"scale": 1.0})), ValueError, "got one for scale"),
        (lambda: MeanField(Factor(dist.Gamma, {"rate": -1.0})), ValueError, "must start at a valid rate, got -1.0"),
        (
            lambda: Minibatched(jnp.sum, jnp.add, (jnp.zeros(3), jnp.zeros(4)), batch_size=1),
            ValueError,
            "data must be arrays of one length",
        ),
        (
            lambda: Minibatched(jnp.sum, jnp.add, jnp.zeros(3), batch_size=4),
            ValueError,
            "batch_size must be from 1 to the 3",
        ),
        (
            lambda: PoissonRegression(("a",), np.arange(3.0)[:, None], np.ones(3)).target(0),
            ValueError,
            "batch_size must be from 1 to the 3 examples, got 0",
        ),
        (
            lambda: PoissonRegression(("a",), np.ones((3, 1)), np.ones(3)),
            ValueError,
            "column 'a' must have several values, got 1 alone",
        ),
    ],
)
def test_misuse_is_refused_in_one_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
