import math
from dataclasses import replace
from functools import lru_cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import integrate, stats
from scipy.special import softmax

from monte_carlo import assert_unbiased, is_biased
from vae_jax import bounds, distributions
from vae_jax.inference import laplace
from vae_jax.inference.evidence import (
    SCHEDULES,
    Annealing,
    Budget,
    annealed_chains,
    annealed_importance_sampling,
    compare_estimates,
    estimate_from_weights,
    geometric,
    importance_sampling,
    importance_weighted_bound,
    linear,
    prior_sampling,
    reverse_annealing,
)
from vae_jax.inference.evidence.evidence_estimate import estimate_from_sums, no_weights, with_weights
from vae_jax.inference.evidence.temperature_schedules import temperatures_of
from vae_jax.problems import LinearGaussian, LinearGaussianChain, PoissonGamma

PAIR, FIVE = LinearGaussianChain(2), LinearGaussianChain(5)
COUNTS = PoissonGamma()
PRIOR_OF_COUNTS = {
    "u": dist.Gamma(COUNTS.prior_u.concentration, COUNTS.prior_u.rate),
    "v": dist.Gamma(COUNTS.prior_v.concentration, COUNTS.prior_v.rate),
}


@lru_cache
def exact_of_counts():
    """log p(x) of the Poisson-Gamma model: v integrated out by its conjugacy, u by adaptive quadrature."""
    power_u, power_v = COUNTS.power_u, COUNTS.power_v

    def log_integrand(u):
        rate = COUNTS.prior_v.rate + len(COUNTS.counts) * u
        return power_u * math.log(u) - COUNTS.prior_u.rate * u - (power_v + 1) * math.log(rate)

    top = max(map(log_integrand, np.linspace(0.1, 30, 1_000)))
    integral, _ = integrate.quad(lambda u: math.exp(log_integrand(u) - top), 1e-9, 60, epsabs=0, limit=400)
    return math.log(integral) + top + math.lgamma(power_v + 1) + COUNTS.log_constant


def replicated(estimate, num_replicates, seed=0):
    """An estimate at independent keys, as one program."""
    keys = jax.random.split(jax.random.key(seed), num_replicates)
    return jax.device_get(jax.jit(partial(lax.map, estimate, batch_size=500))(keys))


def mean_and_error(values):
    return values.mean(), values.std(ddof=1) / math.sqrt(len(values))


def assert_mean_weight(estimates, exact, *, resolution):
    """The mean weight is unbiased where its logarithm is not."""
    assert_unbiased(*mean_and_error(np.exp(estimates.log_evidence - exact)), 1, resolution=resolution)


def assert_calibrated(estimates):
    """The standard error is the standard deviation of the estimate."""
    spread = estimates.log_evidence.std(ddof=1)
    assert np.sqrt((estimates.log_evidence_se**2).mean()) == pytest.approx(spread, rel=0.15)


def test_the_mean_likelihood_of_the_prior_is_unbiased():
    estimates = replicated(lambda key: prior_sampling(PAIR.log_likelihood, PAIR.prior, key, 100), 4_000)
    assert_mean_weight(estimates, PAIR.log_evidence, resolution=0.04)
    assert_calibrated(estimates)


def test_the_log_of_the_mean_weight_is_biased_downwards():
    estimates = replicated(lambda key: prior_sampling(PAIR.log_likelihood, PAIR.prior, key, 5), 4_000)
    mean, error = mean_and_error(estimates.log_evidence)
    assert mean < PAIR.log_evidence
    assert is_biased(mean, error, PAIR.log_evidence)


def test_the_mean_weight_of_a_proposal_is_unbiased():
    estimates = replicated(lambda key: importance_sampling(FIVE.log_joint, FIVE.mean_field, key, 100), 4_000)
    assert_mean_weight(estimates, FIVE.log_evidence, resolution=0.02)
    assert_calibrated(estimates)


def test_a_density_that_is_not_normalised_is_caught():
    def wrong(z):
        return FIVE.log_joint(z) + math.log(1.02)

    estimates = replicated(lambda key: importance_sampling(wrong, FIVE.mean_field, key, 100), 4_000)
    assert is_biased(*mean_and_error(np.exp(estimates.log_evidence - FIVE.log_evidence)), 1)


def test_the_posterior_as_its_proposal_gives_the_exact_evidence():
    approximation = laplace(FIVE.log_joint, jnp.zeros(5))
    estimate = importance_sampling(FIVE.log_joint, approximation.posterior, jax.random.key(0), 1_000)
    assert estimate.log_evidence == pytest.approx(FIVE.log_evidence, abs=1e-5)
    assert estimate.log_evidence_se < 1e-5
    assert estimate.effective_sample_size == pytest.approx(1_000, rel=1e-5)
    assert estimate.pareto_k == -math.inf
    assert estimate.reliable


def test_the_bound_is_below_the_evidence_and_rises_to_it():
    def bound(num_samples):
        return jax.device_get(
            importance_weighted_bound(
                FIVE.log_joint, FIVE.mean_field, jax.random.key(num_samples), num_samples, num_replicates=4_000
            )
        )

    one, three = bound(1), bound(3)
    for lower, higher in ((one, three.log_evidence), (three, FIVE.log_evidence)):
        assert lower.log_evidence < higher
        assert is_biased(lower.log_evidence, lower.log_evidence_se, higher)
    assert one.num_samples == 1
    assert one.effective_sample_size == 1
    assert 1 < three.effective_sample_size < 3
    assert three.reliable


def test_the_bound_of_one_sample_is_the_elbo():
    single = LinearGaussianChain(1)
    estimate = importance_weighted_bound(single.log_joint, single.prior, jax.random.key(0), 1, num_replicates=20_000)
    elbo = -(math.log(2 * math.pi) + 1.5**2 + 1) / 2
    assert_unbiased(estimate.log_evidence, estimate.log_evidence_se, elbo, resolution=0.2)


def test_each_replicate_is_the_bound_of_the_library():
    key, num_replicates = jax.random.key(3), 12
    estimate = importance_weighted_bound(FIVE.log_joint, FIVE.mean_field, key, 7, num_replicates=num_replicates)

    @jax.jit
    @jax.vmap
    def bound(key):
        return bounds.importance_weighted(FIVE.log_joint, FIVE.mean_field, key, 7)

    values = np.asarray(bound(jax.random.split(key, num_replicates)))
    assert estimate.log_evidence == pytest.approx(np.mean(values), rel=1e-5)
    assert estimate.log_evidence_se == pytest.approx(np.std(values, ddof=1) / math.sqrt(num_replicates), rel=1e-3)


SHORT = Annealing(num_temperatures=8, num_leapfrog_steps=2)
THREE = LinearGaussianChain(3)


def annealed_weights(log_joint, **options):
    """exp(log weight) over the evidence of annealed chains of short runs, averaged over the chains of each run."""

    def run(key):
        return annealed_chains(log_joint, THREE.prior, key, 20, annealing=replace(SHORT, **options)).log_weights

    return np.exp(replicated(run, 1_000) - THREE.log_evidence).mean(1)


@pytest.mark.parametrize(
    ("schedule", "step_size"),
    [("sigmoid", None), ("sigmoid", 0.7), pytest.param("geometric", None, marks=pytest.mark.slow)],
)
def test_the_mean_weight_of_annealed_chains_is_unbiased(schedule, step_size):
    weights = annealed_weights(THREE.log_joint, schedule=SCHEDULES[schedule], step_size=step_size)
    assert_unbiased(*mean_and_error(weights), 1, resolution=0.15)


def test_a_transition_that_accepts_everything_is_caught(monkeypatch):
    from blackjax.mcmc import hmc

    def unadjusted(key, state, log_density, step_size, squared_scale, num_steps):
        del squared_scale
        momentum = jax.random.normal(key, state.position.shape)
        position = state.position
        for _ in range(num_steps):
            momentum = momentum + step_size * jax.grad(log_density)(position) / 2
            position = position + step_size * momentum
            momentum = momentum + step_size * jax.grad(log_density)(position) / 2
        moved = hmc.init(position, log_density)
        return moved, hmc.HMCInfo(momentum, jnp.ones(()), True, False, 0.0, None, num_steps)

    monkeypatch.setattr(hmc, "build_kernel", lambda: unadjusted)
    # Programs are kept by function: this one is new.
    weights = annealed_weights(lambda z: THREE.log_joint(z), step_size=0.9)
    assert is_biased(*mean_and_error(weights), 1)


def test_a_weight_without_its_last_increment_is_caught():
    def run(key):
        chains = annealed_chains(THREE.log_joint, THREE.prior, key, 20, annealing=SHORT)
        last = 1 - SCHEDULES["sigmoid"](8)[-2]
        return chains.log_weights - last * jax.vmap(THREE.log_likelihood)(chains.samples)

    weights = np.exp(replicated(run, 1_000) - THREE.log_evidence).mean(1)
    assert is_biased(*mean_and_error(weights), 1)


def test_annealing_is_calibrated_and_better_than_the_prior_by_itself():
    estimates = replicated(
        lambda key: annealed_importance_sampling(FIVE.log_joint, FIVE.prior, key, 64, annealing=Annealing(20)), 400
    )
    assert_mean_weight(estimates, FIVE.log_evidence, resolution=0.05)
    assert_calibrated(estimates)
    assert (estimates.effective_sample_size > 30).all()
    assert ((estimates.acceptance_rate > 0.6) & (estimates.acceptance_rate <= 1)).all()


@pytest.mark.slow
def test_both_directions_of_annealing_enclose_the_evidence():
    def enclose(key):
        forward_key, sample_key, reverse_key = jax.random.split(key, 3)
        samples = distributions.sample(PAIR.posterior, sample_key, 2)
        below = annealed_importance_sampling(PAIR.log_joint, PAIR.prior, forward_key, 2, annealing=Annealing(4))
        above = reverse_annealing(PAIR.log_joint, PAIR.prior, samples, reverse_key, annealing=Annealing(4))
        return below.log_evidence, above.log_evidence

    below, above = map(np.asarray, replicated(enclose, 2_000))
    assert below.mean() < PAIR.log_evidence < above.mean()
    for side in (below, above):
        assert is_biased(*mean_and_error(side), PAIR.log_evidence)


def test_the_mean_inverse_weight_of_reversed_chains_is_unbiased():
    def run(key):
        sample_key, key = jax.random.split(key)
        samples = distributions.sample(PAIR.posterior, sample_key, 20)
        return reverse_annealing(PAIR.log_joint, PAIR.prior, samples, key, annealing=Annealing(20, step_size=0.4))

    estimates = replicated(run, 500)
    inverse_weights = np.exp(PAIR.log_evidence - estimates.log_evidence)
    assert_unbiased(*mean_and_error(inverse_weights), 1, resolution=0.16)
    assert ((estimates.acceptance_rate > 0.9) & (estimates.acceptance_rate <= 1)).all()


@pytest.mark.slow
def test_constrained_latents_are_annealed_without_bias():
    estimates = replicated(
        lambda key: annealed_importance_sampling(
            COUNTS.log_joint, PRIOR_OF_COUNTS, key, 50, annealing=Annealing(20, num_leapfrog_steps=3)
        ),
        400,
    )
    assert_mean_weight(estimates, exact_of_counts(), resolution=0.1)
    assert_calibrated(estimates)


def counts_by_importance_sampling(key):
    proposal = {"u": dist.LogNormal(math.log(4.8), 0.6), "v": dist.LogNormal(math.log(0.95), 0.6)}
    return importance_sampling(COUNTS.log_joint, proposal, key, 200)


def counts_by_prior_sampling(key):
    def log_likelihood(z):
        return COUNTS.log_joint(z) - distributions.log_prob(PRIOR_OF_COUNTS, z)

    return prior_sampling(log_likelihood, PRIOR_OF_COUNTS, key, 200)


@pytest.mark.parametrize(
    "estimate", [counts_by_importance_sampling, pytest.param(counts_by_prior_sampling, marks=pytest.mark.slow)]
)
def test_the_evidence_of_counts_is_that_of_quadrature(estimate):
    assert_mean_weight(replicated(estimate, 2_000), exact_of_counts(), resolution=0.1)


def test_two_temperatures_are_importance_sampling_without_transitions():
    chains = annealed_chains(FIVE.log_joint, FIVE.mean_field, jax.random.key(0), 300, annealing=Annealing(2))
    weights = jax.jit(jax.vmap(lambda z: FIVE.log_joint(z) - FIVE.mean_field.log_prob(z)))(chains.samples)
    np.testing.assert_allclose(chains.log_weights, weights, rtol=1e-5, atol=1e-5)
    estimate = annealed_importance_sampling(
        FIVE.log_joint, FIVE.mean_field, jax.random.key(0), 300, annealing=Annealing(2)
    )
    assert estimate.acceptance_rate is None


@pytest.mark.slow
def test_weighted_chains_are_samples_of_the_posterior():
    chains = annealed_chains(COUNTS.log_joint, PRIOR_OF_COUNTS, jax.random.key(2), 4_000, annealing=Annealing(30))
    weights = softmax(chains.log_weights)
    mean = {name: float(weights @ np.asarray(samples)) for name, samples in chains.samples.items()}
    # E[u v | x] is close to the mean count, and each mean to the known ones.
    assert mean["u"] == pytest.approx(4.864, abs=0.15)
    assert mean["v"] == pytest.approx(0.966, abs=0.03)


@pytest.mark.slow
def test_prior_sampling_fails_with_many_latents_and_says_so():
    problem = LinearGaussianChain(50)
    budget = Budget(num_samples=4_000, num_chains=128)
    estimates = compare_estimates(
        problem.log_likelihood, problem.log_joint, problem.prior, problem.mean_field, jax.random.key(0), budget=budget
    )
    prior, annealed = estimates["prior_sampling"], estimates["annealed_importance_sampling"]
    assert prior.log_evidence < problem.log_evidence - 1
    assert not prior.reliable
    assert prior.pareto_k > 0.7
    assert annealed.effective_sample_size > 30
    assert annealed.log_evidence_se < 0.2
    assert abs(annealed.log_evidence - problem.log_evidence) < 0.6
    assert estimates["importance_weighted_bound"].log_evidence < problem.log_evidence


def test_the_samples_of_the_last_chunk_are_counted_once():
    estimate = prior_sampling(lambda z: 0.0 * z, dist.Normal(), jax.random.key(0), 10, chunk_size=4)
    assert estimate.log_evidence == pytest.approx(0, abs=1e-6)
    assert estimate.effective_sample_size == pytest.approx(10)
    assert estimate.num_samples == 10


@pytest.mark.parametrize("chunk_size", [1_000, 65_536])
def test_an_estimate_has_the_gradient_of_the_evidence(chunk_size):
    """For x ~ Normal(z, 1) and z ~ Normal(m, 1) that by m is (x - m) / 2."""
    x, num_samples = 1.5, 20_000
    proposal = dist.Normal(0.5, 1.0)

    def log_evidence(m):
        def log_joint(z):
            return dist.Normal(m, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)

        estimate = importance_sampling(log_joint, proposal, jax.random.key(0), num_samples, chunk_size=chunk_size)
        return estimate.log_evidence, estimate.effective_sample_size

    gradient, effective_size = jax.grad(log_evidence, has_aux=True)(0.3)
    # The posterior's standard deviation of z, whose mean is the gradient but for m.
    assert_unbiased(gradient, math.sqrt(0.5 / effective_size), (x - 0.3) / 2, resolution=0.1)


def test_weights_in_pieces_give_the_estimate_of_them_all():
    log_weights = 3 * jax.random.normal(jax.random.key(0), (1_000,)) - 400
    sums = no_weights(1_000, log_weights.dtype)
    for piece in jnp.split(log_weights, [1, 40, 500]):
        sums = with_weights(sums, piece)
    chex.assert_trees_all_close(estimate_from_sums(sums, 1_000), estimate_from_weights(log_weights), rtol=1e-4)


def test_the_error_is_that_of_the_delta_method():
    log_weights = jax.random.normal(jax.random.key(0), (500,))
    weights = np.exp(np.asarray(log_weights, float))
    estimate = estimate_from_weights(log_weights)
    assert estimate.log_evidence == pytest.approx(math.log(weights.mean()), rel=1e-5)
    expected = weights.std(ddof=1) / math.sqrt(500) / weights.mean()
    assert estimate.log_evidence_se == pytest.approx(expected, rel=1e-4)
    assert estimate.effective_sample_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum(), rel=1e-5)


def moved_gaussian(draw, size):
    """Log weights of a proposal off by a standard deviation in one dimension."""
    return draw.normal(size=size) - 0.5


def scaled_gaussian(num_dimensions, scale):
    """Log weights of a proposal whose standard deviations are off by a factor. The evidence is 1."""

    def log_weights(draw, size):
        z = scale * draw.normal(size=(*size, num_dimensions))
        return ((z**2) * (1 / scale**2 - 1) / 2 + math.log(scale)).sum(-1)

    return log_weights


def pareto_weights(shape):
    return lambda draw, size: shape * draw.exponential(size=size) + math.log(1 - shape)


def student_target(draw, size):
    """Log weights of a normal proposal, whose tails are too light."""
    z = draw.normal(size=size)
    return stats.t.logpdf(z, 5) - stats.norm.logpdf(z)


SIMULATED_WEIGHTS = {
    "moved": moved_gaussian,
    "narrow, 1": scaled_gaussian(1, 0.5),
    "narrow, 4": scaled_gaussian(4, 0.6),
    "close, 4": scaled_gaussian(4, 0.95),
    "wide, 4": scaled_gaussian(4, 1.5),
    "wide, 10": scaled_gaussian(10, 1.2),
    "pareto 0.2": pareto_weights(0.2),
    "pareto 0.7": pareto_weights(0.7),
    "student": student_target,
}


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [100, 1_000, 10_000])
@pytest.mark.parametrize("name", SIMULATED_WEIGHTS)
def test_reliable_intervals_cover_a_known_evidence(name, num_samples):
    num_runs = 2_000 if num_samples < 10_000 else 400
    estimate = jax.jit(jax.vmap(estimate_from_weights))
    found = []
    for seed in range(num_runs // 100):
        log_weights = SIMULATED_WEIGHTS[name](np.random.default_rng(seed), (100, num_samples))
        found.append(jax.device_get(estimate(jnp.asarray(log_weights, jnp.float32))))
    estimates = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    covers = np.abs(estimates.log_evidence) < 1.96 * estimates.log_evidence_se
    reliable = estimates.reliable
    if covers.mean() < 0.85:
        assert reliable.mean() < 0.01
    if reliable.mean() > 0.2:
        assert covers[reliable].mean() > 0.9 - 3 * math.sqrt(0.09 / reliable.sum())
    # Markov's bound holds whatever the weights.
    assert (estimates.log_evidence > math.log(20)).mean() < 0.05


def norm_quantiles(number):
    return jnp.asarray(stats.norm.ppf((np.arange(number) + 0.5) / number), jnp.float32)


def test_weights_too_skewed_for_their_number_are_not_reliable():
    """Quantiles of a lognormal distribution, whose skewness is 4.7, are too few and then enough."""
    few, many = (estimate_from_weights(0.9 * norm_quantiles(number)) for number in (1_000, 10_000))
    for estimate in (few, many):
        assert estimate.effective_sample_size > 10
        assert estimate.pareto_k <= 1 / 3
    assert not few.reliable
    assert many.reliable


def test_the_skewness_of_the_weights_does_not_depend_on_their_pieces_or_zeros():
    log_weights = jax.random.normal(jax.random.key(0), (1_000,)) - 300
    log_weights = jnp.where(jnp.arange(1_000) % 3 == 0, -jnp.inf, log_weights)
    sums = no_weights(2_000, log_weights.dtype)
    for piece in jnp.split(log_weights, [1, 40, 500]):
        sums = with_weights(sums, piece)
    weights = np.exp(np.asarray(log_weights, float) - float(log_weights.max()))
    kept = weights[weights > 0]
    assert sums.number == len(kept)
    for power, found in ((2, sums.square), (3, sums.cube)):
        assert found == pytest.approx(((kept - kept.mean()) ** power).sum(), rel=1e-4)


def test_weights_of_zero_count_and_none_but_zero_are_not_reliable():
    half = jnp.where(jnp.arange(400) % 2 == 0, 0.0, -jnp.inf)
    estimate = estimate_from_weights(half)
    assert estimate.log_evidence == pytest.approx(math.log(0.5), rel=1e-5)
    assert estimate.effective_sample_size == pytest.approx(200)
    nothing = estimate_from_weights(jnp.full(400, -jnp.inf))
    assert nothing.log_evidence == -math.inf
    assert not nothing.reliable


def test_discrete_latents_can_be_sampled_but_not_annealed():
    def log_joint(z):
        return dist.Bernoulli(0.3).log_prob(z) + dist.Normal(jnp.asarray(z, float), 1.0).log_prob(1.2)

    q = dist.Bernoulli(jnp.asarray(0.5))
    exact = math.log(0.7 * stats.norm.pdf(1.2) + 0.3 * stats.norm.pdf(0.2))
    estimates = replicated(lambda key: importance_sampling(log_joint, q, key, 50), 2_000)
    assert_mean_weight(estimates, exact, resolution=0.05)
    with pytest.raises(TypeError, match="q must be continuous to be annealed, got Bernoulli"):
        annealed_importance_sampling(log_joint, q, jax.random.key(0), 10)


@pytest.mark.parametrize(
    "estimate",
    [
        lambda log_joint, key: importance_sampling(log_joint, FIVE.mean_field, key, 50),
        lambda log_joint, key: importance_weighted_bound(log_joint, FIVE.mean_field, key, 5, num_replicates=10),
        lambda log_joint, key: annealed_importance_sampling(log_joint, FIVE.prior, key, 8, annealing=Annealing(4)),
    ],
)
def test_a_function_is_traced_in_its_first_call_alone(estimate):
    num_traces = 0

    def log_joint(z):
        nonlocal num_traces
        num_traces += 1
        return FIVE.log_joint(z)

    first = estimate(log_joint, jax.random.key(0))
    before = num_traces
    assert before
    second = estimate(log_joint, jax.random.key(1))
    assert num_traces == before
    assert first.log_evidence != second.log_evidence


def test_double_precision_stays_double(float64):
    problem = LinearGaussianChain(3)
    estimates = jax.eval_shape(
        lambda key: compare_estimates(
            problem.log_likelihood,
            problem.log_joint,
            problem.prior,
            problem.mean_field,
            key,
            budget=Budget(num_samples=200, num_bound_samples=5, num_chains=10, num_temperatures=5),
        ),
        jax.random.key(0),
    )
    for estimate in estimates.values():
        assert estimate.log_evidence.dtype == jnp.float64
        assert estimate.log_evidence_se.dtype == jnp.float64


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("number", [2, 3, 50])
def test_every_schedule_rises_from_zero_to_one(name, number):
    temperatures = temperatures_of(SCHEDULES[name], number)
    assert temperatures[0] == 0
    assert temperatures[-1] == 1
    assert (np.diff(temperatures) > 0).all()


def test_the_schedules_are_what_they_say():
    np.testing.assert_allclose(linear(5), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(geometric(6), [0, 1e-4, 1e-3, 1e-2, 1e-1, 1])


def test_one_latent_of_the_chain_is_the_known_problem():
    assert LinearGaussianChain(1).log_evidence == pytest.approx(LinearGaussian().log_evidence)


@pytest.mark.parametrize("problem", [FIVE, LinearGaussianChain(4, x=-0.7, coupling=1.3, noise_scale=0.4)])
def test_the_joint_over_the_posterior_is_the_evidence_of_the_chain(problem, float64):
    @jax.jit
    @jax.vmap
    def densities(z):
        return problem.log_joint(z), problem.posterior.log_prob(z), problem.prior.log_prob(z), problem.log_likelihood(z)

    z = np.random.default_rng(0).standard_normal((3, problem.num_latents))
    joint, posterior, prior, likelihood = map(np.asarray, densities(z))
    np.testing.assert_allclose(joint - posterior, problem.log_evidence, rtol=1e-6)
    np.testing.assert_allclose(likelihood, joint - prior, rtol=1e-6)


def test_the_mean_field_has_the_highest_elbo_of_the_chain(float64):
    def elbo(loc, log_scale):
        curvature = jax.hessian(FIVE.log_joint)(loc)
        return FIVE.log_joint(loc) + (jnp.diagonal(curvature) * jnp.exp(2 * log_scale)).sum() / 2 + log_scale.sum()

    best = FIVE.mean_field.base_dist
    for slope in jax.jit(jax.grad(elbo, argnums=(0, 1)))(best.loc, np.log(best.scale)):
        np.testing.assert_allclose(slope, 0, atol=1e-10)


KEY = jax.random.key(0)
MISUSES = {
    "num_samples must be at least 2, got 1": lambda: importance_sampling(FIVE.log_joint, FIVE.prior, KEY, 1),
    "chunk_size must be at least 1, got 0": lambda: prior_sampling(
        FIVE.log_likelihood, FIVE.prior, KEY, 10, chunk_size=0
    ),
    "num_replicates must be at least 2, got 1": lambda: importance_weighted_bound(
        FIVE.log_joint, FIVE.prior, KEY, 10, num_replicates=1
    ),
    "num_chains must be at least 2, got 1": lambda: annealed_importance_sampling(FIVE.log_joint, FIVE.prior, KEY, 1),
    "num_temperatures must be at least 2, got 1": lambda: Annealing(1),
    "num_leapfrog_steps must be at least 1, got 0": lambda: Annealing(num_leapfrog_steps=0),
    "step_size must be positive and finite, got -1.0": lambda: Annealing(step_size=-1.0),
    "schedule must give 3 temperatures rising from 0 to 1": lambda: Annealing(3, lambda number: np.ones(number)),
    "num_temperatures must be at least 2, got 0": Budget(num_temperatures=0).check,
    "must have an empty batch shape": lambda: importance_sampling(
        FIVE.log_joint, dist.Normal(jnp.zeros(5), 1.0), KEY, 10
    ),
    "must return one scalar for one sample": lambda: importance_sampling(lambda z: z, FIVE.prior, KEY, 10),
    "num_samples must be at least twice num_bound_samples": Budget(num_samples=10, num_bound_samples=6).check,
    "num_chains must be at least 2, got 0": lambda: compare_estimates(
        FIVE.log_likelihood,
        FIVE.log_joint,
        FIVE.prior,
        FIVE.mean_field,
        KEY,
        budget=Budget(num_chains=0),
    ),
    "num_latents must be at least 1, got 0": lambda: LinearGaussianChain(0),
    "noise_scale must be positive and finite, got 0.0": lambda: LinearGaussianChain(2, noise_scale=0.0),
    "x must be finite, got nan": lambda: LinearGaussianChain(2, x=math.nan),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse_is_refused_in_words(message):
    with pytest.raises(ValueError, match=message):
        MISUSES[message]()
