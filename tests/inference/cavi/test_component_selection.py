import itertools
import math
from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions.kl import kl_divergence
from scipy import stats
from scipy.special import logsumexp

from vae_jax import distributions
from vae_jax.inference import cavi
from vae_jax.inference.cavi import mixture_weights as cavi_weights

RUN = {"num_restarts": 6, "max_steps": 200}
"""The options of runs that share their programs."""

MOST = 7
"""Components of runs that share their programs."""


@lru_cache
def clusters(num_components=3, num_events=150, seed=0):
    """Well apart."""
    prior = cavi.GaussianPoissonMixture(
        position_precision=jnp.array(4.0),
        prior_loc=jnp.array([10.0, -20.0]),
        prior_precision=jnp.array(0.01),
        concentration=jnp.array(2.0),
        rate=jnp.array(0.1),
        weights=cavi.GivenWeights(jnp.full(num_components, 1 / num_components)),
    )
    return prior, prior.simulate(jax.random.key(seed), num_events)


def choose(data, numbers, **options):
    return cavi.choose_num_components(cavi.gaussian_poisson_mixture, data, numbers, jax.random.key(1), **RUN, **options)


@jax.jit
def responsibilities_of(model, state, data):
    return model.responsibilities(state, data)


@jax.jit
def bound_of(model, state, responsibilities, data):
    return model.elbo(state, responsibilities, data)


@pytest.mark.slow
def test_the_true_number_scores_highest(float64):
    prior, truth = clusters()

    def build(data, num_components):
        return prior._replace(weights=cavi.DirichletWeights(jnp.ones(num_components)))

    told = []
    selection = cavi.choose_num_components(
        build, truth.data, (4, 1, 2, 3, MOST), jax.random.key(0), **RUN, on_candidate=told.append
    )
    assert [each.num_components for each in selection.candidates] == [1, 2, 3, 4, MOST]
    assert told == list(selection.candidates)
    assert selection.best.num_components == 3
    assert not selection.ends_at_best
    for each in selection.candidates:
        assert each.num_empty == max(0, each.num_components - 3)
        orders = math.lgamma(each.num_components + 1) - math.lgamma(each.num_empty + 1)
        assert each.log_symmetries == pytest.approx(orders)
        assert each.score == pytest.approx(each.elbo + each.log_symmetries)
        assert each.elbo_history[-1] == each.elbo
        assert each.ascent.restart_histories.shape == (6, 200)
        assert 1 <= each.num_at_best <= 6
        assert each.ascent.state.loc.shape == (each.num_components, 2)


@pytest.mark.parametrize("kind", ["given", pytest.param("normal-wishart", marks=pytest.mark.slow)])
def test_a_padded_mixture_is_the_same_mixture(float64, kind):
    """Absent components change neither the starts nor the bounds nor the factors."""
    events = clusters()[1].data
    data = cavi.points(events.positions) if kind == "normal-wishart" else events
    build = cavi.normal_wishart_mixture if kind == "normal-wishart" else cavi.gaussian_poisson_mixture
    weights = cavi.GivenWeights(jnp.array([0.2, 0.3, 0.5])) if kind == "given" else None
    model = build(data, 3, weights=weights)
    padded = model._replace(weights=cavi_weights.padded(model.weights, MOST))
    plain, wide = (cavi.ascend(each, data, jax.random.key(3), **RUN) for each in (model, padded))
    np.testing.assert_allclose(wide.restart_histories, plain.restart_histories, rtol=1e-10)
    for got, expected in zip(jax.tree.leaves(wide.state), jax.tree.leaves(plain.state), strict=True):
        np.testing.assert_allclose(got[:3], expected, rtol=1e-7)
    responsibilities = np.asarray(responsibilities_of(padded, wide.state, data))
    np.testing.assert_array_equal(responsibilities[3:], 0)
    bound = bound_of(padded, wide.state, responsibilities, data)
    assert bound == pytest.approx(float(bound_of(model, plain.state, responsibilities[:3], data)), rel=1e-10)


def test_a_component_that_is_present_but_empty_is_not_absent(float64):
    """The negative control: the same mixture with more components has other bounds."""
    data = clusters()[1].data
    bounds = [float(each.ascent.elbo) for each in choose(data, (3, MOST)).candidates]
    assert abs(bounds[0] - bounds[1]) > 1


def test_a_number_does_not_depend_on_the_others(float64):
    data = clusters()[1].data
    alone, among = choose(data, (2,)), choose(data, (1, 2, MOST))
    assert alone.candidates[0].elbo == pytest.approx(among.candidates[1].elbo, rel=1e-12)
    np.testing.assert_allclose(
        alone.candidates[0].ascent.restart_elbos, among.candidates[1].ascent.restart_elbos, rtol=1e-10
    )


def test_all_numbers_are_traced_once(float64):
    data = clusters()[1].data

    class Counted(cavi.GaussianPoissonMixture):
        # Once for the type of its bound and once for the loop.
        step = chex.assert_max_traces(cavi.GaussianPoissonMixture.step, n=2)

    def build(data, num_components):
        return Counted(*cavi.gaussian_poisson_mixture(data, num_components))

    for numbers in ((1, 3, 4), (2, 4)):
        cavi.choose_num_components(build, data, numbers, jax.random.key(0), num_restarts=2, max_steps=3)


def test_the_best_at_the_end_of_a_range_is_said_to_be_there(float64):
    data = clusters()[1].data
    assert choose(data, (1, 2)).ends_at_best
    assert not choose(data, (2,)).ends_at_best


def test_a_bound_that_is_not_a_number_is_never_the_best(float64):
    selection = choose(clusters()[1].data, (1, 2))
    first, second = selection.candidates
    broken = second._replace(ascent=second.ascent._replace(elbo=jnp.array(jnp.nan)))
    assert cavi.Selection((first, broken)).best is first


@pytest.mark.parametrize(
    ("probs", "orders"), [((0.25,) * 4, 24), ((0.4, 0.2, 0.2, 0.2), 6), ((0.3, 0.3, 0.2, 0.2), 4), ((0.5, 0.3, 0.2), 1)]
)
def test_only_components_of_equal_prior_weight_change_places(float64, probs, orders):
    weights = cavi.GivenWeights(jnp.array(probs))
    assert cavi.log_num_symmetries(weights, np.zeros(len(probs), bool)) == pytest.approx(math.log(orders))


def test_empty_components_that_coincide_have_fewer_orders(float64):
    weights = cavi.DirichletWeights(jnp.ones(5))
    is_empty = np.array([False, False, True, True, True])
    assert cavi.log_num_symmetries(weights, is_empty) == pytest.approx(math.log(20))


@pytest.mark.slow
def test_the_mixture_of_all_orders_has_a_higher_bound_by_the_symmetry(float64):
    """The bound is estimated from draws of q, for two clusters and two empty components: 4! / 2! orders."""
    data = cavi.located_counts(np.repeat([[0.0], [8.0]], 3, axis=0), np.repeat([2, 40], 3))
    model = cavi.gaussian_poisson_mixture(data, 4, position_precision=1.0, weights=cavi.GivenWeights(jnp.full(4, 0.25)))
    kept = state = cavi.ascend(model, data, jax.random.key(0), num_restarts=5).state
    responsibilities = np.asarray(responsibilities_of(model, state, data))
    is_empty = cavi.component_sizes(model, state) < 0.5
    assert is_empty.sum() == 2
    orders = np.array(list(itertools.permutations(range(4))))
    latents = jax.jit(lambda key: distributions.sample(model.posterior(state), key, 400))(jax.random.key(1))
    draws, loc = np.asarray(latents["rate"]), np.asarray(latents["loc"])
    uniform = np.random.default_rng(2).uniform(size=(400, 6))
    labels = (uniform[:, None] > responsibilities.cumsum(0)[None, :-1]).sum(1)

    def log_q(order):
        inverse = np.argsort(order)
        of_labels = np.log(responsibilities[inverse][labels, np.arange(6)[None]] + 1e-300).sum(1)
        state = jax.tree.map(np.asarray, kept)
        of_rate = stats.gamma.logpdf(draws, state.concentration[inverse], scale=1 / state.rate[inverse]).sum(1)
        of_loc = stats.norm.logpdf(loc, state.loc[inverse], state.precision[inverse, None] ** -0.5).sum((1, 2))
        return of_labels + of_rate + of_loc

    of_orders = np.stack([log_q(order) for order in orders])
    # The bound's gain is -E[log of the equal mixture's density over that of one order].
    gain = -(logsumexp(of_orders, axis=0) - math.log(24) - of_orders[0])
    expected = cavi.log_num_symmetries(model.weights, is_empty)
    # Clusters so far apart do not overlap in any draw, and the gain is the same in all.
    np.testing.assert_allclose(gain, expected, atol=1e-6)


def test_the_dirichlet_divergence_is_numpyro_s(float64):
    prior, factor = jnp.array([0.3, 1.0, 2.5]), jnp.array([4.0, 1.2, 2.5])
    expected = kl_divergence(dist.Dirichlet(factor), dist.Dirichlet(prior))
    for number in (3, 5):
        weights = cavi_weights.padded(cavi.DirichletWeights(prior), number)
        got = weights.divergence(jnp.pad(factor, (0, number - 3)))
        assert got == pytest.approx(float(expected), rel=1e-12)


def test_effective_components_are_counted_by_their_shares(float64):
    prior, truth = clusters()
    model = prior._replace(weights=cavi.DirichletWeights(jnp.ones(MOST)))
    ascent = cavi.ascend(model, truth.data, jax.random.key(0), **RUN)
    shares = np.bincount(truth.labels) / 150
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert cavi.effective_num_components(model, ascent.state) == pytest.approx(expected, rel=0.05)
    rows = cavi.components(model, ascent.state, responsibilities_of(model, ascent.state, truth.data), truth.data)
    assert [each.is_empty for each in rows] == [False] * 3 + [True] * (MOST - 3)
    assert rows[-1].rate == pytest.approx(float(prior.concentration / prior.rate), rel=0.01)


def test_components_are_those_of_the_factors(float64):
    prior, truth = clusters()
    ascent = cavi.ascend(prior, truth.data, jax.random.key(0), **RUN)
    shares = np.asarray(responsibilities_of(prior, ascent.state, truth.data))
    rows = cavi.components(prior, ascent.state, shares, truth.data)
    posterior = prior.posterior(ascent.state)
    for k, each in enumerate(rows):
        assert each.num_events == pytest.approx(shares[k].sum())
        assert each.rate == pytest.approx(float(posterior["rate"].mean[k]))
        assert each.rate_std == pytest.approx(float(posterior["rate"].variance[k]) ** 0.5)
        np.testing.assert_allclose(each.loc_std, np.sqrt(posterior["loc"].variance[k]))
        np.testing.assert_allclose(each.covariance, np.eye(2) / 4)
        counts = np.asarray(truth.data.counts)[shares.argmax(0) == k]
        assert each.dispersion == pytest.approx(counts.var() / counts.mean(), rel=0.1)
    assert rows[0].weight == pytest.approx(1 / 3)
    assert rows[0].weight_std == 0


def test_components_of_the_normal_wishart_mixture(float64):
    generator = np.random.default_rng(0)
    data = cavi.points(generator.normal(size=(400, 2)) @ np.array([[2.0, 1.0], [0.0, 0.5]]))
    model = cavi.normal_wishart_mixture(data, 1)
    ascent = cavi.ascend(model, data, jax.random.key(0))
    (row,) = cavi.components(model, ascent.state, jnp.ones((1, 400)), data)
    np.testing.assert_allclose(row.covariance, np.cov(np.asarray(data.features[:2])), rtol=0.02)
    np.testing.assert_allclose(row.loc_std, np.sqrt(np.diagonal(row.covariance) / 400), rtol=0.02)
    assert row.rate is None
    assert row.weight == pytest.approx(1)


def test_the_truth_is_matched_to_the_fit(float64):
    prior, truth = clusters()
    ascent = cavi.ascend(prior, truth.data, jax.random.key(0), **RUN)
    shares = responsibilities_of(prior, ascent.state, truth.data)
    found = cavi.recovery(prior, ascent.state, shares, truth)
    assert sorted(found.matches.tolist()) == [0, 1, 2]
    assert found.share_right > 0.99
    assert found.share_attainable > 0.99
    assert found.num_intervals == 9
    assert found.num_inside >= 6
    moved = truth._replace(loc=truth.loc + 1.0)
    wrong = cavi.recovery(prior, ascent.state, shares, moved)
    assert not wrong.loc_inside.any()
    np.testing.assert_array_equal(wrong.rate_inside, found.rate_inside)


def test_fewer_components_than_the_truth_leave_some_without_a_match(float64):
    prior, truth = clusters()
    model = prior._replace(weights=cavi.GivenWeights(jnp.full(2, 0.5)))
    ascent = cavi.ascend(model, truth.data, jax.random.key(0), **RUN)
    found = cavi.recovery(model, ascent.state, responsibilities_of(model, ascent.state, truth.data), truth)
    assert sorted(found.matches.tolist()) == [-1, 0, 1]
    assert found.num_intervals == 6
    missing = int(np.flatnonzero(found.matches < 0)[0])
    assert not found.loc_inside[missing].any()
    assert not found.rate_inside[missing]
    assert found.share_right < 0.9


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((), "num_components must be different numbers, got \\[\\]"),
        ((2, 3, 2), "num_components must be different numbers, got \\[2, 3, 2\\]"),
        ((1, 151), "num_components must be from 1 to the 150 events, got 151"),
        ((0, 1), "got 0"),
    ],
)
def test_wrong_numbers_are_named_before_any_fit(float64, numbers, message):
    with pytest.raises(ValueError, match=message):
        choose(clusters()[1].data, numbers, on_candidate=lambda each: pytest.fail("fitted"))
