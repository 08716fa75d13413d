import math
import warnings
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, multigammaln, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

from monte_carlo import assert_unbiased, is_biased
from vae_jax import distributions, elbo
from vae_jax.inference import cavi
from vae_jax.inference.cavi import coordinate_ascent as ascent
from vae_jax.inference.cavi import optimal_assignment as assignment
from vae_jax.problems import PoissonGamma
from vae_jax.replicates import replicate_mesh

SHAPE = (30, 3, 2)
"""Events, components, dimensions. Tests that need no other have this one, and share its compiled programs."""

OTHER_SHAPES = [(6, 6, 1), (50, 5, 3)]

MAX_STEPS = 100
"""Options of a run that shares its program with others."""


def random_events(seed, num_events, num_dimensions):
    """Clumps, some events twice, with counts of different sizes."""
    generator = np.random.default_rng(seed)
    clumps = generator.normal(scale=3, size=(3, num_dimensions)) + 10 * generator.normal()
    labels = generator.integers(3, size=num_events)
    positions = clumps[labels] + generator.normal(size=(num_events, num_dimensions))
    positions[1] = positions[0]
    return cavi.located_counts(positions, generator.poisson(generator.gamma(1, 20, 3)[labels]))


def random_weights(generator, kind, num_components):
    if kind == "given":
        return cavi.GivenWeights(jnp.asarray(generator.dirichlet(np.ones(num_components)) * 0.9 + 0.1 / num_components))
    return cavi.DirichletWeights(jnp.asarray(generator.uniform(0.1, 3, num_components)))


def random_mixture(seed, num_events, num_components, num_dimensions, kind):
    generator = np.random.default_rng(1000 + seed)
    data = random_events(seed, num_events, num_dimensions)
    alpha, beta, tau, rho = np.exp(generator.uniform(-2, 2, 4))
    model = cavi.gaussian_poisson_mixture(
        data,
        num_components,
        position_precision=tau,
        prior_loc=generator.normal(scale=5, size=num_dimensions),
        prior_precision=rho / 10,
        concentration=alpha,
        rate=beta / 10,
        weights=random_weights(generator, kind, num_components),
    )
    return model, data


def random_normal(seed):
    generator = np.random.default_rng(seed)
    prior = generator.normal(), *np.exp(generator.uniform(-2, 2, 3))
    data = jnp.asarray(generator.normal(generator.normal(), np.exp(generator.normal()), 12))
    return cavi.NormalModel(*map(jnp.asarray, prior)), data


def random_poisson_gamma(seed):
    generator = np.random.default_rng(seed)
    a, b, c, d = np.exp(generator.uniform(-1, 2, 4))
    data = jnp.asarray(generator.poisson(5, 10), float)
    return cavi.PoissonGammaModel(cavi.GammaFactor(a, b), cavi.GammaFactor(c, d)), data


def random_normal_wishart(seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=40)
    data = cavi.points(5 * generator.normal(size=(3, 2))[labels] + generator.normal(size=(40, 2)) @ [[1, 2], [0, 0.5]])
    model = cavi.normal_wishart_mixture(
        data,
        4,
        prior_loc=generator.normal(size=2),
        prior_count=math.exp(generator.uniform(-2, 2)),
        inverse_scale=np.diag(np.exp(generator.uniform(-1, 1, 2))) + 0.1,
        degrees=generator.uniform(1.1, 5),
        weights=random_weights(generator, "dirichlet", 4),
    )
    return model, data


@jax.jit
def start(model, data):
    return model.init(jax.random.key(0), data)


@jax.jit
def swept(model, state, data):
    return model.step(state, data)


@jax.jit
def responsibilities_of(model, state, data):
    return model.responsibilities(state, data)


@jax.jit
def updated_by(model, responsibilities, data):
    return model.update(responsibilities, data)


@jax.jit
def bound_and_slopes(model, state, responsibilities, data):
    """The bound, and its slopes by the parameters of all factors but that of the labels."""
    return jax.value_and_grad(lambda state: model.elbo(symmetric(state), responsibilities, data))(state)


@jax.jit
def bound_and_slope_by_logits(model, state, logits, data):
    return jax.value_and_grad(lambda logits: model.elbo(state, jax.nn.softmax(logits, axis=0), data))(logits)


@jax.jit
def bound_and_slopes_without_labels(model, state, data):
    return jax.value_and_grad(lambda state: model.elbo(state, data))(state)


@jax.jit
def canonical_of(model, state):
    return model.canonical(state)


@jax.jit
def predicted(model, state, *events):
    return model.predictive_log_density(state, *events)


@jax.jit
def fixed_steps(model, data, num_steps):
    state = model.init(jax.random.key(0), data)
    return jax.lax.fori_loop(0, num_steps, lambda _, state: model.step(state, data)[0], state)


def symmetric(state):
    if not hasattr(state, "inverse_scale"):
        return state
    return state._replace(inverse_scale=(state.inverse_scale + state.inverse_scale.mT) / 2)


def bound_of(model, state, responsibilities, data):
    return float(bound_and_slopes(model, state, responsibilities, data)[0])


MODELS = {
    "normal-wishart": random_normal_wishart,
    "normal": random_normal,
    "poisson-gamma": random_poisson_gamma,
    **{
        f"earthquakes-{kind}-{shape[0]}": partial(
            lambda seed, shape, kind: random_mixture(seed, *shape, kind), shape=shape, kind=kind
        )
        for shape in (SHAPE, *OTHER_SHAPES)
        for kind in ("given", "dirichlet")
    },
}
SLOW_MODELS = [name for name in MODELS if name.endswith(("-6", "-50"))]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_MODELS else ()) for name in MODELS]
)
def test_the_bound_never_falls(float64, name):
    for seed in range(8):
        model, data = MODELS[name](seed)
        ascent = cavi.ascend(model, data, jax.random.key(seed), max_steps=MAX_STEPS, tolerance=0.0)
        history = np.asarray(ascent.elbo_history[: ascent.num_steps])
        assert np.isfinite(history).all()
        assert (np.diff(history) >= -1e-9 * np.abs(history[:-1])).all()
        assert np.isneginf(ascent.elbo_history[ascent.num_steps :]).all()
        assert ascent.elbo == history[-1]


def assert_stationary(bound_and_slopes, state, names):
    """The slope by each named parameter is zero, in units of the bound; nearby factors have lower bounds."""
    value, slopes = bound_and_slopes(state)
    factor, slopes = ({name: getattr(tree, name) for name in names} for tree in (state, slopes))
    for leaf, slope in zip(jax.tree.leaves(factor), jax.tree.leaves(slopes), strict=True):
        assert np.abs(slope * leaf).max() < 1e-9 * max(1, abs(value))
    generator = np.random.default_rng(0)
    for size in (1e-3, 0.1):
        changes = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape), factor)
        near = jax.tree.map(lambda leaf, change, size=size: np.asarray(leaf) * np.exp(size * change), factor, changes)
        assert bound_and_slopes(state._replace(**near))[0] < value


@pytest.mark.parametrize("kind", ["given", "dirichlet"])
@pytest.mark.parametrize("shape", [SHAPE, pytest.param(OTHER_SHAPES[0], marks=pytest.mark.slow)])
def test_each_update_of_the_mixture_maximises_the_bound(float64, shape, kind):
    model, data = random_mixture(3, *shape, kind)
    state = start(model, data)
    responsibilities = responsibilities_of(model, state, data)
    updated = updated_by(model, responsibilities, data)
    bound = partial(bound_and_slopes, model, responsibilities=responsibilities, data=data)
    assert_stationary(bound, updated, ["loc", "precision"])
    assert_stationary(bound, updated, ["concentration", "rate"])
    if kind == "dirichlet":
        assert_stationary(bound, updated, ["weights"])
    logits = np.log(responsibilities)
    value, slope = bound_and_slope_by_logits(model, state, logits, data)
    assert np.abs(slope).max() < 1e-9 * abs(value)
    near = logits + 0.1 * np.random.default_rng(0).normal(size=logits.shape)
    assert bound_and_slope_by_logits(model, state, near, data)[0] < value


def test_the_sums_over_many_blocks_are_those_of_all_events_at_once(float64):
    num_events = 2 * assignment._block_size(3, 10**6) + 77
    model, data = random_mixture(1, num_events, 3, 2, "dirichlet")

    @jax.jit
    def both_ways(model, data):
        state = model.init(jax.random.key(0), data)
        sums, log_normalizer = assignment.assign(model._coefficients(state, data), data.features)
        responsibilities = model.responsibilities(state, data)
        bound = log_normalizer + model._constant(data) - model._divergence(state)
        return sums, bound, responsibilities, model.elbo(state, responsibilities, data)

    sums, bound, responsibilities, expected = both_ways(model, data)
    np.testing.assert_allclose(sums, responsibilities @ np.asarray(data.features).T, rtol=1e-9, atol=1e-9)
    assert bound == pytest.approx(float(expected), rel=1e-12)


def test_a_division_by_the_plain_count_is_no_maximiser(float64):
    model, data = random_mixture(3, *SHAPE, "dirichlet")
    responsibilities = responsibilities_of(model, start(model, data), data)
    wrong = updated_by(model, responsibilities, data)._replace(rate=np.asarray(model.rate) + np.full(3, 10.0))
    bound = partial(bound_and_slopes, model, responsibilities=responsibilities, data=data)
    with pytest.raises(AssertionError):
        assert_stationary(bound, wrong, ["rate"])


def test_the_bound_a_step_reports_is_that_of_its_factors(float64):
    for kind in ("given", "dirichlet"):
        model, data = random_mixture(5, *SHAPE, kind)
        state = start(model, data)
        responsibilities = responsibilities_of(model, state, data)
        updated, info = swept(model, state, data)
        np.testing.assert_allclose(updated.loc, updated_by(model, responsibilities, data).loc, rtol=1e-12)
        assert info.elbo == pytest.approx(bound_of(model, updated, responsibilities, data), rel=1e-12)


def textbook_update(model, responsibilities, positions, counts):
    """Event by event."""
    loc, precision, concentration, rate = [], [], [], []
    for shares in responsibilities:
        precision.append(model.prior_precision + model.position_precision * shares.sum())
        pull = model.prior_precision * model.prior_loc + model.position_precision * sum(
            share * x for share, x in zip(shares, positions, strict=True)
        )
        loc.append(pull / precision[-1])
        concentration.append(model.concentration + sum(shares * counts))
        rate.append(model.rate + sum(shares))
    return np.array(loc), np.array(precision), np.array(concentration), np.array(rate)


def test_the_updates_are_those_of_the_textbook(float64):
    model, data = random_mixture(2, *SHAPE, "dirichlet")
    responsibilities = responsibilities_of(model, start(model, data), data)
    updated = updated_by(model, responsibilities, data)
    expected = textbook_update(model, np.asarray(responsibilities), np.asarray(data.positions), np.asarray(data.counts))
    for got, value in zip(updated[:4], expected, strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-11)
    weights = np.asarray(model.weights.concentration) + np.asarray(responsibilities).sum(1)
    np.testing.assert_allclose(updated.weights, weights, rtol=1e-12)


def log_joint(model, data, latents, labels):
    """Written once more, one sample at a time, with SciPy's constants."""
    loc, rate, weights = (np.asarray(latents[name]) for name in ("loc", "rate", "weights"))
    tau, rho = float(model.position_precision), float(model.prior_precision)
    positions, counts = np.asarray(data.positions), np.asarray(data.counts)
    numbers = np.arange(len(loc))[:, None]
    return (
        stats.norm.logpdf(loc, np.asarray(model.prior_loc), rho**-0.5).sum((1, 2))
        + stats.gamma.logpdf(rate, float(model.concentration), scale=1 / float(model.rate)).sum(1)
        + stats.dirichlet.logpdf(weights.T, np.asarray(model.weights.concentration))
        + np.log(weights[numbers, labels]).sum(1)
        + stats.norm.logpdf(positions[None], loc[numbers, labels], tau**-0.5).sum((1, 2))
        + stats.poisson.logpmf(counts[None], rate[numbers, labels]).sum(1)
    )


@partial(jax.jit, static_argnames="num_samples")
def drawn(model, state, logits, num_samples):
    """Parameters and labels from q, and its log density there."""
    q = model.posterior(state)
    latents = distributions.sample(q, jax.random.key(1), num_samples)
    labels = jax.random.categorical(jax.random.key(2), logits, shape=(num_samples, len(logits)))
    log_q = jax.vmap(partial(distributions.log_prob, q))(latents)
    return latents, labels, log_q + logits[jnp.arange(len(logits))[None], labels].sum(1)


def test_the_bound_is_that_of_draws(float64):
    model, data = random_mixture(7, *SHAPE, "dirichlet")
    state = swept(model, start(model, data), data)[0]
    # Neither factor at its optimum, so that no term's error can hide.
    state = state._replace(loc=np.asarray(state.loc) + 0.1, rate=1.1 * np.asarray(state.rate))
    responsibilities = softmax(0.7 * np.log(responsibilities_of(model, state, data)), axis=0)
    num_samples = 20_000
    latents, labels, log_q = drawn(model, state, np.log(responsibilities).T, num_samples)
    draws = log_joint(model, data, latents, np.asarray(labels)) - np.asarray(log_q)
    error = draws.std() / math.sqrt(num_samples)
    exact = bound_of(model, state, responsibilities, data)
    assert_unbiased(draws.mean(), error, exact, resolution=0.5)
    dropped = float(model.position_precision) * (data.features.shape[1] / np.asarray(state.precision)).sum() / 2
    assert is_biased(draws.mean(), error, exact + dropped)


def test_with_one_component_the_mixture_is_conjugate(float64):
    """q is the posterior, and the bound the evidence."""
    model, data = random_mixture(4, 30, 1, 2, "dirichlet")
    state = fixed_steps(model, data, 1)
    tau, rho, nu = (np.asarray(x) for x in (model.position_precision, model.prior_precision, model.prior_loc))
    positions, counts = np.asarray(data.positions), np.asarray(data.counts)
    covariance = np.eye(30) / tau + np.ones((30, 30)) / rho
    evidence = sum(
        stats.multivariate_normal.logpdf(column, np.full(30, loc), covariance)
        for column, loc in zip(positions.T, nu, strict=True)
    )
    a, b, total = float(model.concentration), float(model.rate), counts.sum()
    evidence += a * math.log(b) - gammaln(a) + gammaln(a + total) - (a + total) * math.log(b + 30)
    evidence -= gammaln(counts + 1).sum()
    assert bound_of(model, state, np.ones((1, 30)), data) == pytest.approx(evidence, rel=1e-10)
    np.testing.assert_allclose(state.loc[0], (rho * nu + tau * positions.sum(0)) / (rho + 30 * tau), rtol=1e-12)


def test_the_normal_is_at_its_closed_form(float64):
    for seed in range(5):
        model, data = random_normal(seed)
        state = fixed_steps(model, data, 60)
        x, n = np.asarray(data), len(data)
        loc = (model.prior_count * model.prior_loc + x.sum()) / (model.prior_count + n)
        squares = ((x - loc) ** 2).sum() + model.prior_count * (loc - model.prior_loc) ** 2
        expected = (model.concentration + n / 2) / (model.rate + squares / 2)
        assert state.loc == pytest.approx(float(loc), rel=1e-10)
        assert state.concentration / state.rate == pytest.approx(float(expected), rel=1e-10)
        assert state.precision == pytest.approx(float((model.prior_count + n) * expected), rel=1e-10)
        assert_stationary(partial(bound_and_slopes_without_labels, model, data=data), state, state._fields)


def test_with_a_flat_prior_the_normal_s_precision_is_the_unbiased_one(float64):
    x = np.random.default_rng(0).normal(3, 2, 12)
    state = fixed_steps(cavi.NormalModel(*np.array([0.0, 1e-12, 1e-12, 1e-12])), x, 60)
    # The half observation of the prior of the mean, worth nothing itself, stays in the concentration.
    assert state.concentration / state.rate == pytest.approx(12 / ((x - x.mean()) ** 2).sum(), rel=1e-8)


def test_the_normal_s_bound_is_below_its_evidence_by_the_divergence(float64):
    model, data = jax.tree.map(np.asarray, random_normal(3))
    state = fixed_steps(model, data, 60)
    k, a, n = float(model.prior_count), float(model.concentration), len(data)
    loc = (k * model.prior_loc + data.sum()) / (k + n)
    b = float(model.rate + (((data - loc) ** 2).sum() + k * (loc - model.prior_loc) ** 2) / 2)
    evidence = gammaln(a + n / 2) - gammaln(a) + a * math.log(model.rate) - (a + n / 2) * math.log(b)
    evidence += math.log(k / (k + n)) / 2 - n / 2 * math.log(2 * math.pi)
    mean = stats.norm(float(state.loc), float(state.precision) ** -0.5)
    precision = stats.gamma(float(state.concentration), scale=1 / float(state.rate))

    def integrand(mu, tau):
        log_q = mean.logpdf(mu) + precision.logpdf(tau)
        log_p = stats.gamma.logpdf(tau, a + n / 2, scale=1 / b)
        return np.exp(log_q) * (log_q - log_p - stats.norm.logpdf(mu, float(loc), ((k + n) * tau) ** -0.5))

    def integral(num_nodes):
        nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
        mu, tau = (np.add(*ends) / 2 + np.diff(ends) / 2 * nodes for ends in ranges)
        areas = np.outer(weights, weights) * np.prod(np.diff(ranges)) / 4
        return (areas * integrand(mu[:, None], tau[None])).sum()

    ranges = [mean.ppf([1e-13, 1 - 1e-13]), precision.ppf([1e-13, 1 - 1e-13])]
    divergence = integral(200)
    assert divergence == pytest.approx(integral(150), abs=1e-9)
    bound = float(bound_and_slopes_without_labels(model, state, data)[0])
    assert bound == pytest.approx(evidence - divergence, abs=1e-6)


PROBLEM = PoissonGamma()
POISSON_GAMMA = cavi.PoissonGammaModel(cavi.GammaFactor(*PROBLEM.prior_u), cavi.GammaFactor(*PROBLEM.prior_v))


def test_the_poisson_gamma_is_at_its_closed_form(float64):
    data = np.asarray(PROBLEM.counts, float)
    state = fixed_steps(POISSON_GAMMA, data, 200)
    # E[u] (b_u + N E[v]) = A and E[v] (b_v + N E[u]) = B, with E[v] = (B - A + b_u E[u]) / b_v.
    a, b, (_, rate_u), (_, rate_v), n = 47, 46, PROBLEM.prior_u, PROBLEM.prior_v, 10
    square, linear = n * rate_u / rate_v, rate_u + n * (b - a) / rate_v
    mean_u = (-linear + math.sqrt(linear**2 + 4 * square * a)) / (2 * square)
    mean_v = (b - a + rate_u * mean_u) / rate_v
    assert state.u.mean == pytest.approx(mean_u, rel=1e-8)
    assert state.v.mean == pytest.approx(mean_v, rel=1e-8)
    assert (float(state.u.mean), float(state.v.mean)) == pytest.approx((4.6463, 0.9116), abs=5e-5)
    assert_stationary(partial(bound_and_slopes_without_labels, POISSON_GAMMA, data=data), state, state._fields)


def test_the_poisson_gamma_s_bound_is_that_of_draws_under_the_problem_s_log_joint(float64):
    data = np.asarray(PROBLEM.counts, float)
    state = fixed_steps(POISSON_GAMMA, data, 3)
    q = POISSON_GAMMA.posterior(state)

    @jax.jit
    def elbos(key):
        return jax.vmap(lambda key: elbo(PROBLEM.log_joint, q, key, 4))(jax.random.split(key, 20_000))

    draws = np.asarray(elbos(jax.random.key(0)))
    error = draws.std() / math.sqrt(len(draws))
    exact = float(bound_and_slopes_without_labels(POISSON_GAMMA, state, data)[0])
    assert_unbiased(draws.mean(), error, exact, resolution=0.2)
    assert is_biased(draws.mean(), error, exact + 0.2)


@pytest.mark.slow
def test_the_simulated_truth_is_recovered(float64):
    prior = cavi.GaussianPoissonMixture(
        position_precision=jnp.array(4.0),
        prior_loc=jnp.array([100.0, -20.0]),
        prior_precision=jnp.array(0.01),
        concentration=jnp.array(2.0),
        rate=jnp.array(0.1),
        weights=cavi.GivenWeights(jnp.array([0.1, 0.2, 0.3, 0.4])),
    )
    truth = prior.simulate(jax.random.key(2), 5_000)
    ascent = cavi.ascend(prior, truth.data, jax.random.key(0), num_restarts=4)
    assert bool(ascent.converged)
    sizes = np.bincount(truth.labels, minlength=4)
    # Four standard deviations of the estimates, and the precisions that the sizes lead to.
    np.testing.assert_array_less(np.abs(ascent.state.loc - truth.loc).max(1), 4 * (4 * sizes) ** -0.5)
    rates = ascent.state.concentration / ascent.state.rate
    np.testing.assert_array_less(np.abs(rates - truth.rate), 4 * np.sqrt(truth.rate / sizes))
    got = model_labels(prior, ascent.state, truth.data)
    assert np.mean(got == np.asarray(truth.labels)) > 0.98


def model_labels(model, state, data):
    return np.asarray(responsibilities_of(model, state, data)).argmax(0)


def test_restarts_keep_the_best_and_labels_are_canonical(float64):
    data = random_events(1, 30, 2)
    model = cavi.gaussian_poisson_mixture(data, 5, position_precision=30.0)
    ascent = cavi.ascend(model, data, jax.random.key(0), num_restarts=20, max_steps=200)
    assert ascent.elbo == ascent.restart_elbos.max()
    assert len(np.unique(np.round(ascent.restart_elbos, 6))) > 1
    assert (np.diff(ascent.state.precision) <= 0).all()
    shuffled = jax.tree.map(lambda leaf: np.asarray(leaf)[[3, 0, 4, 1, 2]], ascent.state)
    chex.assert_trees_all_equal(canonical_of(model, shuffled), ascent.state)


def test_starts_that_are_made_one_after_the_other_are_the_same(float64, monkeypatch):
    """As with so many events that all starts at once would not fit in memory."""
    data = random_events(1, 30, 2)
    model = cavi.gaussian_poisson_mixture(data, 5)
    at_once = ascent._starts(model, data, jax.random.key(0), 20)
    monkeypatch.setattr(ascent, "ELEMENTS_OF_STARTS", 2 * data.features.size)
    ascent._starts.clear_cache()
    in_pairs = ascent._starts(model, data, jax.random.key(0), 20)
    ascent._starts.clear_cache()
    chex.assert_trees_all_close(in_pairs, at_once, rtol=1e-12)


@pytest.mark.slow
def test_a_sweep_has_no_array_of_events_and_components(float64):
    """Its temporary memory does not grow with the events."""

    def temporary(num_events):
        model, data = random_mixture(0, num_events, 10, 2, "dirichlet")
        state = jax.eval_shape(model.init, jax.random.key(0), data)
        return jax.jit(model.step).lower(state, data).compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(20_000), temporary(200_000)
    assert 0 < large < 1.1 * small


@pytest.mark.slow
def test_components_of_different_given_weights_keep_their_places(float64):
    data = random_events(1, 30, 2)
    weights = cavi.GivenWeights(jnp.array([0.4, 0.2, 0.2, 0.2]))
    model = cavi.gaussian_poisson_mixture(data, 4, weights=weights)
    state = cavi.GaussianPoissonFactors(
        np.arange(8.0).reshape(4, 2), np.array([1.0, 2.0, 4.0, 3.0]), np.ones(4), np.ones(4), None
    )
    np.testing.assert_array_equal(canonical_of(model, state).precision, [1, 4, 3, 2])


def test_empty_components_are_at_their_prior(float64):
    data = cavi.located_counts(np.repeat([[0.0, 0.0], [5.0, 5.0]], 15, axis=0), np.array([1] * 15 + [9] * 15))
    model = cavi.gaussian_poisson_mixture(data, 3, position_precision=100.0)
    ascent = cavi.ascend(model, data, jax.random.key(0), max_steps=MAX_STEPS, tolerance=0.0)
    state = start(model, data)
    assert np.isfinite(ascent.elbo)
    np.testing.assert_array_equal(
        np.asarray(state.rate)[np.asarray(state.precision) == model.prior_precision], model.rate
    )
    assert (np.asarray(state.precision) == model.prior_precision).sum() == 1
    np.testing.assert_allclose(np.asarray(ascent.state.loc[:2]).sum(0), [5, 5], atol=0.1)


def test_identical_points_with_given_precisions_are_one_cluster(float64):
    data = cavi.located_counts(np.ones((30, 2)), np.full(30, 3))
    model = cavi.gaussian_poisson_mixture(data, 3, position_precision=1.0, prior_precision=1.0)
    ascent = cavi.ascend(model, data, jax.random.key(0), max_steps=MAX_STEPS)
    assert np.isfinite(ascent.elbo)
    np.testing.assert_allclose(ascent.state.loc, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["given", "dirichlet"])
def test_the_predictive_density_integrates_to_one_and_is_the_mean_of_draws(float64, kind):
    model, data = random_mixture(0, 30, 3, 1, kind)
    state = swept(model, start(model, data), data)[0]
    grid, counts = np.linspace(-300, 300, 24_001), np.arange(3.0)
    places, counts_there = (np.asarray(values)[:3] for values in (data.positions, data.counts))
    positions = np.concatenate([np.tile(grid, 3), places[:, 0]])[:, None]
    density = np.exp(predicted(model, state, positions, np.concatenate([np.repeat(counts, len(grid)), counts_there])))
    total = np.trapezoid(density[:-3].reshape(3, -1), grid, axis=1)
    shares = np.asarray(model.weights.mean(state.weights))
    a, b = np.asarray(state.concentration), np.asarray(state.rate)
    np.testing.assert_allclose(total, stats.nbinom.pmf(counts[:, None], a, b / (b + 1)) @ shares, rtol=1e-6)
    # And, event by event, the mean over q's draws of the density given the parameters.
    latents = jax.device_get(drawn(model, state, np.zeros((1, 3)), 20_000)[0])
    weights = latents.get("weights", shares[None])
    for place, count, exact in zip(places, counts_there, density[-3:], strict=True):
        of_place = stats.norm.pdf(place[0], latents["loc"][..., 0], float(model.position_precision) ** -0.5)
        draws = (weights * of_place * stats.poisson.pmf(count, latents["rate"])).sum(1)
        error = draws.std() / math.sqrt(len(draws))
        assert_unbiased(draws.mean() / exact, error / exact, 1.0, resolution=0.1)
        assert is_biased(draws.mean() / exact, error / exact, 1.5)


def test_scaling_the_positions_scales_the_answer(float64):
    generator = np.random.default_rng(0)
    positions, counts = generator.normal(size=(30, 2)), generator.poisson(5, 30)
    plain, scaled = cavi.located_counts(positions, counts), cavi.located_counts(7 * positions + 100, counts)
    ends = [
        cavi.ascend(cavi.gaussian_poisson_mixture(data, 3), data, jax.random.key(0), max_steps=MAX_STEPS, tolerance=0.0)
        for data in (plain, scaled)
    ]
    np.testing.assert_allclose(ends[1].state.loc, 7 * np.asarray(ends[0].state.loc) + 100, rtol=1e-6)
    # Densities of positions are in units of the positions.
    assert ends[1].elbo == pytest.approx(float(ends[0].elbo) - 60 * math.log(7), rel=1e-9)


@pytest.mark.slow
def test_single_precision_far_from_the_origin_agrees_with_double():
    generator = np.random.default_rng(0)
    positions, counts = 1e4 + generator.normal(size=(200, 2)), generator.poisson(5, 200)

    def bound():
        data = cavi.located_counts(positions, counts)
        model = cavi.gaussian_poisson_mixture(data, 1)
        return float(cavi.ascend(model, data, jax.random.key(0)).elbo)

    single = bound()
    with jax.enable_x64(True):
        assert single == pytest.approx(bound(), rel=2e-6)


@pytest.mark.slow
def test_the_quakes_of_fiji_have_several_clusters(data_folder):
    table = np.genfromtxt(data_folder / "quakes.csv", delimiter=",", names=True)
    data = cavi.located_counts(np.stack([table["long"], table["lat"]], 1), table["stations"])
    bounds = {}
    for num_components in (1, 6):
        model = cavi.gaussian_poisson_mixture(data, num_components)
        ascent = cavi.ascend(model, data, jax.random.key(0), num_restarts=4, max_steps=300)
        bounds[num_components] = float(ascent.elbo) + cavi.log_num_labellings(num_components)
    assert bounds[1] < bounds[6]


def test_a_run_is_traced_once(float64):
    _, data = random_mixture(0, *SHAPE, "given")

    class Counted(cavi.GaussianPoissonMixture):
        # Once for the type of its bound and once for the loop.
        step = chex.assert_max_traces(cavi.GaussianPoissonMixture.step, n=2)

    counted = [Counted(*random_mixture(seed, *SHAPE, "given")[0]) for seed in range(3)]
    cavi.ascend(counted[0], data, jax.random.key(0))
    cavi.ascend(counted[1], data, jax.random.key(1), tolerance=1e-3)


def test_each_update_of_the_normal_wishart_mixture_maximises_the_bound(float64):
    model, data = random_normal_wishart(3)
    state = start(model, data)
    responsibilities = responsibilities_of(model, state, data)
    updated = updated_by(model, responsibilities, data)
    value, gradient = bound_and_slopes(model, updated, responsibilities, data)
    for leaf in jax.tree.leaves(gradient):
        assert np.abs(leaf).max() < 1e-9 * abs(value)
    for name in ("inverse_scale", "degrees"):
        larger = updated._replace(**{name: 1.1 * np.asarray(getattr(updated, name))})
        assert bound_of(model, larger, responsibilities, data) < value
    of_logits = bound_and_slope_by_logits(model, state, np.log(responsibilities), data)[1]
    assert np.abs(of_logits).max() < 1e-9 * abs(value)
    stepped, info = swept(model, state, data)
    assert info.elbo == pytest.approx(float(value), rel=1e-12)
    np.testing.assert_allclose(stepped.inverse_scale, updated.inverse_scale, rtol=1e-9, atol=1e-9)


def test_with_one_component_the_normal_wishart_mixture_is_conjugate(float64):
    """The bound is the evidence, which is the product of the predictive densities of one point after the other."""
    generator = np.random.default_rng(0)
    positions = generator.normal(size=(6, 2)) @ [[1, 2], [0, 0.5]]
    prior = {"prior_loc": np.array([1.0, -1.0]), "inverse_scale": np.array([[2.0, 0.3], [0.3, 1.0]])}
    prior |= {"prior_count": 0.7, "degrees": 2.5}

    data = cavi.points(positions)
    model = cavi.normal_wishart_mixture(data, 1, **prior)

    def after(number):
        return updated_by(model, (np.arange(6.0) < number)[None] * 1.0, data)

    def student(state, point):
        freedom = float(state.degrees[0]) - 1
        shape = np.asarray(state.inverse_scale[0]) * (1 + state.loc_count[0]) / (freedom * state.loc_count[0])
        expected = stats.multivariate_t.logpdf(point, np.asarray(state.loc[0]), shape, freedom)
        assert predicted(model, state, point[None])[0] == pytest.approx(expected, rel=1e-10)
        return expected

    *hyperparameters, _ = (np.asarray(leaf)[None] for leaf in jax.tree.leaves(model))
    states = [cavi.NormalWishartFactors(*hyperparameters, np.ones(1)), *map(after, range(1, 6))]
    evidence = sum(student(state, point) for state, point in zip(states, positions, strict=True))
    assert bound_of(model, after(6), np.ones((1, 6)), data) == pytest.approx(evidence, rel=1e-10)


def nearly_dependent_points(noise):
    generator = np.random.default_rng(0)
    x = generator.normal(size=200) + 8 * (np.arange(200) % 2)
    return np.stack([x, 2 * x + noise * generator.normal(size=200) + 50], axis=1)


def evidence_of_one_component(positions):
    """Under the default prior, which makes the posterior's inverse scale N + 1 times the covariance."""
    size, num_dimensions = positions.shape
    root = np.linalg.qr((positions - positions.mean(0)) / math.sqrt(size), mode="r")
    log_det = 2 * np.log(np.abs(np.diagonal(root))).sum()
    prior, posterior = num_dimensions, num_dimensions + size
    gammas = multigammaln(posterior / 2, num_dimensions) - multigammaln(prior / 2, num_dimensions)
    of_scales = prior / 2 * log_det - posterior / 2 * (log_det + num_dimensions * math.log(size + 1))
    return gammas + of_scales - num_dimensions / 2 * (size * math.log(math.pi) + math.log(size + 1))


def test_the_bound_of_nearly_dependent_columns_is_exact_in_single_precision():
    for noise in (1.0, 1e-3, 1e-5):
        positions = nearly_dependent_points(noise)
        data = cavi.points(positions)
        found = cavi.ascend(cavi.normal_wishart_mixture(data, 1), data, jax.random.key(0))
        assert float(found.elbo) == pytest.approx(evidence_of_one_component(positions), abs=2e-3)


def fit_of_points(positions, num_components):
    data = cavi.points(positions)
    model = cavi.normal_wishart_mixture(data, num_components)
    ascent = cavi.ascend(model, data, jax.random.key(0), num_restarts=2)
    responsibilities = model.responsibilities(ascent.state, data)
    return ascent, responsibilities, float(model.elbo(ascent.state, responsibilities, data))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1e-3, 1e-5])
def test_nearly_dependent_columns_are_clustered_in_single_precision(noise):
    positions = nearly_dependent_points(noise)
    single, shares, again = fit_of_points(positions, 2)
    with jax.enable_x64(True):
        double, exact_shares, exact = fit_of_points(positions, 2)
    assert float(single.elbo) == pytest.approx(float(double.elbo), abs=0.02)
    assert again == pytest.approx(exact, abs=0.02)
    np.testing.assert_allclose(shares, exact_shares, atol=2e-3)
    np.testing.assert_allclose(single.state.loc, double.state.loc, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_whitened_points_have_the_bound_of_the_original_ones(float64):
    model, data = random_normal_wishart(2)
    white_model, white = model.in_whitened_units(data)
    np.testing.assert_allclose(white.features[2:6].mean(1).reshape(2, 2), np.eye(2), atol=1e-12)
    state = swept(white_model, start(white_model, white), white)[0]
    responsibilities = responsibilities_of(white_model, state, white)
    original = white_model.in_original_units(state, white)
    np.testing.assert_allclose(responsibilities_of(model, original, data), responsibilities, atol=1e-10)
    bound = bound_of(white_model, state, responsibilities, white)
    assert bound_of(model, original, responsibilities, data) == pytest.approx(float(bound), rel=1e-11)


def test_dependent_columns_are_fitted_under_a_prior_of_their_own(float64):
    x = np.random.default_rng(0).normal(size=30)
    data = cavi.points(np.stack([x, x, np.ones(30)], axis=1))
    model = cavi.normal_wishart_mixture(data, 1, inverse_scale=np.eye(3))
    ascent = cavi.ascend(model, data, jax.random.key(0))
    assert float(ascent.elbo) == pytest.approx(bound_of(model, ascent.state, np.ones((1, 30)), data), rel=1e-10)


POSITIONS = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("positions", "counts", "message"),
    [
        ([[0.0, 1.0], [2.0, math.nan]], [1, 2], "positions must be finite, got nan in row 2, column 2"),
        ([[0.0, 1.0], [math.inf, 2.0]], [1, 2], "got inf in row 2, column 1"),
        ([[0.0, 1.0], [2.0, 3.0]], [1, -2], "counts must be natural numbers, got -2 in row 2"),
        ([[0.0, 1.0], [2.0, 3.0]], [0.5, 2], "got 0.5 in row 1"),
        ([[0.0, 1.0], [2.0, 3.0]], [2, 1e300], "counts must be small enough for float32, got 1e.300 in row 2"),
        ([[0.0, 1.0], [2.0, 1e200], [2.0, 2.0]], [1, 2, 3], "near enough .* for float32, .* in row 2, column 2"),
        ([[0.0, 1.0], [2.0, 3.0]], [1, math.nan], "got nan in row 2"),
        ([[0.0, 1.0]], [1, 2], "counts must have shape"),
        ([0.0, 1.0], [1, 2], "positions must be N rows"),
        (np.zeros((0, 2)), [], "at least one event"),
    ],
)
def test_wrong_events_are_named(positions, counts, message):
    with pytest.raises(ValueError, match=message):
        cavi.located_counts(np.asarray(positions), np.asarray(counts))


@pytest.mark.parametrize(
    ("num_components", "options", "message"),
    [
        (4, {}, "num_components must be from 1 to the 3 events, got 4"),
        (0, {}, "got 0"),
        (2, {"position_precision": -1.0}, "position_precision must be positive"),
        (2, {"concentration": 0.0}, "concentration must be positive"),
        (2, {"rate": math.nan}, "rate must be positive"),
        (2, {"prior_loc": np.zeros(3)}, "prior_loc must be 2 finite numbers"),
        (2, {"weights": cavi.GivenWeights(np.array([0.5, 0.6]))}, "weights must sum to 1"),
        (2, {"weights": cavi.DirichletWeights(np.array([1.0, 0.0]))}, "weights must be 2 positive numbers"),
    ],
)
def test_wrong_mixtures_are_named(num_components, options, message):
    data = cavi.located_counts(POSITIONS, np.array([1, 2, 3]))
    with pytest.raises(ValueError, match=message):
        cavi.gaussian_poisson_mixture(data, num_components, **options)


def test_identical_points_are_named():
    with pytest.raises(ValueError, match="positions must differ, got 3 identical"):
        cavi.gaussian_poisson_mixture(cavi.located_counts(np.ones((3, 2)), np.array([1, 2, 3])), 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_restarts": 0}, "num_restarts must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"tolerance": -1.0}, "tolerance must be 0 or more"),
        ({"tolerance": math.nan}, "tolerance must be 0 or more"),
    ],
)
def test_wrong_runs_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        cavi.ascend(POISSON_GAMMA, jnp.ones(3), jax.random.key(0), **options)


def test_what_is_no_model_is_named():
    with pytest.raises(TypeError, match="model must have init, step and canonical, got int"):
        cavi.ascend(3, jnp.ones(3), jax.random.key(0))


def test_the_normal_wishart_bound_rises_as_scikit_learns_does(float64):
    generator = np.random.default_rng(0)
    num_points, num_components = 300, 4
    labels = generator.integers(0, num_components, num_points)
    positions = 4 * generator.normal(size=(num_components, 2))[labels] + generator.normal(size=(num_points, 2))
    data = cavi.points(positions)
    model = cavi.normal_wishart_mixture(data, num_components)
    responsibilities = np.eye(num_components)[generator.permutation(labels)]

    class FromGiven(BayesianGaussianMixture):
        def _initialize_parameters(self, X, random_state, **_):  # noqa: N803
            self._initialize(X, responsibilities)

    peer = FromGiven(
        n_components=num_components,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=1.0,
        mean_precision_prior=float(model.prior_count),
        mean_prior=np.asarray(model.prior_loc),
        degrees_of_freedom_prior=float(model.degrees),
        covariance_prior=np.asarray(model.inverse_scale),
        reg_covar=0,
        max_iter=1,
        warm_start=True,
    )
    state = updated_by(model, responsibilities.T, data)
    bounds, peers = [], []
    for _ in range(10):
        state, info = swept(model, state, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            peer.fit(positions)
        bounds.append(float(info.elbo))
        peers.append(peer.lower_bound_)
    # Scikit-learn's bound lacks constants.
    np.testing.assert_allclose(np.diff(bounds), np.diff(peers), atol=1e-9)
    assert np.diff(bounds).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("num_events", [pytest.param(4_400, marks=pytest.mark.slow), 4_501])
def test_events_over_several_devices_give_the_same(float64, num_events):
    assert len(jax.devices()) > 1
    model, data = random_mixture(0, num_events, 3, 2, "dirichlet")
    options = {"num_restarts": 2, "max_steps": 20}
    one = cavi.ascend(model, data, jax.random.key(0), **options)
    several = cavi.ascend(model, data, jax.random.key(0), **options, mesh=replicate_mesh())
    assert int(one.num_steps) == int(several.num_steps) > 2
    np.testing.assert_allclose(several.elbo_history, one.elbo_history, rtol=1e-12)
    chex.assert_trees_all_close(several.state, one.state, rtol=1e-9)


def test_a_mesh_without_events_is_refused(float64):
    data = jnp.asarray(PROBLEM.counts, float)
    with pytest.raises(TypeError, match="mesh must be left out"):
        cavi.ascend(POISSON_GAMMA, data, jax.random.key(0), mesh=replicate_mesh())
