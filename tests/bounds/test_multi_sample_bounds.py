"""Bounds of many samples against enumeration, quadrature and the shifted posterior's exact answers."""

import functools
import inspect
import itertools
import math
import operator
from dataclasses import dataclass
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy.special import logsumexp
from scipy.stats import binom, norm

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased, is_biased
from vae_jax import (
    chi,
    distributions,
    doubly_reparameterized,
    elbo,
    importance_weighted,
    jackknife,
    pathwise,
    renyi,
    score_function,
    sleep_loss,
    vimco,
    wake_inference_loss,
    wake_model_loss,
)
from vae_jax.bounds import log_weights, multi_sample_score_function, plain
from vae_jax.bounds.importance_weighted import _local_signals
from vae_jax.bounds.jackknife import _coefficient
from vae_jax.bounds.log_weights import log_mean_exp, log_weight
from vae_jax.estimators import ESTIMATORS, in_blocks
from vae_jax.estimators.objective_values import values_at
from vae_jax.problems.shifted_posterior import ShiftedPosterior

# One Bernoulli latent, all of whose draws can be enumerated.

COIN = {"model": 0.6, "logits": -0.8}


@partial(jax.tree_util.register_dataclass, data_fields=["logits", "draws"], meta_fields=[])
@dataclass
class ScriptedBernoulli:
    """A Bernoulli whose draws are given."""

    logits: object
    draws: object
    batch_shape = ()
    has_rsample = False

    def sample(self, key, sample_shape=()):
        assert self.draws.shape == sample_shape
        return self.draws

    rsample = sample

    def log_prob(self, value):
        return value * self.logits - jax.nn.softplus(self.logits)


def coin_log_joint(model, z):
    return jnp.where(z == 1, jnp.sin(3 * model) - 0.4, -1.5 * model)


def coin_loss(bound, params, draws):
    """A bound of scripted draws."""
    q = ScriptedBernoulli(params["logits"], draws)
    return bound(partial(coin_log_joint, params["model"]), q, jax.random.key(0), len(draws))


def enumerated(bound, num_samples):
    """The exact means of a bound and of its gradient, and the gradient's variances, over all outcomes."""
    params = jax.tree.map(jnp.asarray, COIN)
    outcomes = np.asarray(list(itertools.product((0.0, 1.0), repeat=num_samples)))
    masses = np.exp((outcomes * COIN["logits"] - np.logaddexp(0, COIN["logits"])).sum(axis=1))
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(partial(coin_loss, bound)), (None, 0)))(params, outcomes)
    means = {name: float(masses @ np.asarray(slope)) for name, slope in gradient.items()}
    variances = {name: float(masses @ (np.asarray(slope) - means[name]) ** 2) for name, slope in gradient.items()}
    return float(masses @ np.asarray(value)), means, variances


def coin_log_prob(logits, draws):
    return (draws * logits - jax.nn.softplus(logits)).sum()


def exact_coin_bound(params, num_samples):
    """Its own sum over the number of heads, differentiated by JAX."""
    log_tail, log_head = (coin_log_joint(params["model"], z) - coin_log_prob(params["logits"], z) for z in (0.0, 1.0))
    heads = np.arange(num_samples + 1)
    counts = np.array([math.comb(num_samples, k) for k in heads])
    probability = jax.nn.sigmoid(params["logits"])
    masses = counts * probability**heads * (1 - probability) ** (num_samples - heads)
    mean_weights = (heads * jnp.exp(log_head) + (num_samples - heads) * jnp.exp(log_tail)) / num_samples
    return (masses * jnp.log(mean_weights)).sum()


def exactly(num_samples):
    """The exact bound and its gradient."""
    return jax.jit(jax.value_and_grad(partial(exact_coin_bound, num_samples=num_samples)))(COIN)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_samples", [2, 5])
@pytest.mark.parametrize("gradient", [vimco, multi_sample_score_function])
def test_the_enumerated_mean_is_the_exact_bound_and_its_gradient(gradient, num_samples):
    value, means, _ = enumerated(gradient, num_samples)
    exact_value, exact = exactly(num_samples)
    assert value == pytest.approx(float(exact_value), abs=1e-13)
    for name, slope in exact.items():
        assert means[name] == pytest.approx(float(slope), abs=1e-13)


def with_signal(signal, *, density=distributions.log_prob):
    def bound(log_joint, q, key, num_samples):
        samples = distributions.sample(q, key, num_samples)
        logs = jax.vmap(lambda z: log_joint(z) - density(q, z))(samples)
        score = jax.vmap(distributions.log_prob, (None, 0))(q, samples)
        return log_mean_exp(logs) + (lax.stop_gradient(signal(logs)) * (score - lax.stop_gradient(score))).sum()

    return bound


def held_log_prob(q, z):
    return distributions.log_prob(lax.stop_gradient(q), z)


WRONG_SIGNALS = {
    "a baseline from all samples": with_signal(lambda logs: log_mean_exp(logs) - logs / 2),
    "the weights' own dependence on q left out": with_signal(_local_signals, density=held_log_prob),
    "no count": with_signal(lambda logs: jax.nn.softmax(logs)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", WRONG_SIGNALS)
def test_wrong_signals_miss_the_exact_gradient(name):
    _, means, _ = enumerated(WRONG_SIGNALS[name], 3)
    _, exact = exactly(3)
    assert abs(means["logits"] - exact["logits"]) > 1e-3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_samples", [5])
def test_vimco_lowers_the_enumerated_variance(num_samples):
    with_baseline, without = (enumerated(bound, num_samples)[2] for bound in (vimco, multi_sample_score_function))
    assert with_baseline["logits"] < without["logits"] / 5
    assert with_baseline["model"] == pytest.approx(without["model"], rel=1e-12)


def direct_signals(logs):
    """L - L_-k by its definition in float64, one k at a time."""
    logs = np.asarray(logs, np.float64)
    whole, count = logsumexp(logs), len(logs)
    signals = []
    for k in range(count):
        others = np.delete(logs, k)
        signals.append(whole - np.logaddexp(logsumexp(others), others.mean()))
    return np.array(signals)


LOGS = {
    "spread": norm.rvs(-500, 4, size=200, random_state=0),
    "close": norm.rvs(-500, 1e-3, size=200, random_state=1),
    "one far above": np.concatenate([[-10.0], norm.rvs(-150, 2, size=99, random_state=2)]),
    "one far below": np.concatenate([[-900.0], norm.rvs(-150, 2, size=99, random_state=3)]),
    "two": np.array([-3.0, 5.0]),
    "5000": norm.rvs(-90, 1.5, size=5_000, random_state=4),
}


@pytest.mark.parametrize("case", LOGS)
def test_the_signals_keep_their_digits_in_float32(case):
    logs = np.float32(LOGS[case])
    signals = np.asarray(jax.jit(_local_signals)(logs))
    expected = direct_signals(logs)
    # A naive difference of logs of about 500 has an error of 3e-5; the signals are about 1 / K.
    np.testing.assert_allclose(signals, expected, rtol=1e-4, atol=1e-4 / len(logs))


def test_a_naive_difference_would_not_keep_them():
    logs = np.float32(LOGS["close"])

    @jax.jit
    def difference(logs):
        others = jax.vmap(lambda k: log_mean_exp(jnp.where(jnp.arange(200) == k, logs.mean(), logs)))(jnp.arange(200))
        return log_mean_exp(logs) - others

    naive = difference(logs)
    assert not np.allclose(naive, direct_signals(logs), rtol=1e-2, atol=1e-4 / len(logs))


def test_weights_of_zero_leave_vimco_finite():
    draws = jnp.array([1.0, 0.0, 0.0])

    def loss(params):
        q = ScriptedBernoulli(params["logits"], draws)

        def impossible(z):
            return jnp.where(z == 1, params["model"], -jnp.inf)

        return vimco(impossible, q, jax.random.key(0), 3)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jax.tree.map(jnp.asarray, COIN))
    log_weight_of_one = COIN["model"] - float(coin_log_prob(COIN["logits"], jnp.ones(())))
    assert value == pytest.approx(log_weight_of_one - math.log(3), rel=1e-5)
    assert all(np.isfinite(slope) for slope in gradient.values())


# z ~ N(model_loc, 1), x ~ N(z, 1), q = N(loc, scale): every bound of two or three samples by quadrature.

X = 1.5
PARAMS = {"model_loc": jnp.float32(0.3), "loc": jnp.float32(0.5), "scale": jnp.float32(0.8)}


def log_joint(model_loc, z):
    return dist.Normal(model_loc, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(X)


def gaussian_loss(bound, params, key, num_samples):
    q = dist.Normal(params["loc"], params["scale"])
    return bound(partial(log_joint, params["model_loc"]), q, key, num_samples)


def exact_bound(params, num_samples, alpha=0.0, num_nodes=40):
    """E[1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha)] by a product of K Gauss-Hermite rules."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(num_nodes)
    z = params["loc"] + params["scale"] * nodes
    weights = np.exp(
        (1 - alpha)
        * (norm.logpdf(z, params["model_loc"]) + norm.logpdf(X, z) - norm.logpdf(z, params["loc"], params["scale"]))
    )
    mean_weight = functools.reduce(operator.add, np.meshgrid(*[weights] * num_samples, sparse=True)) / num_samples
    mass = functools.reduce(operator.mul, np.meshgrid(*[masses / masses.sum()] * num_samples, sparse=True))
    return float((mass * np.log(mean_weight)).sum()) / (1 - alpha)


def exact_slopes(num_samples, alpha=0.0, step=1e-5):
    params = {name: float(value) for name, value in PARAMS.items()}

    def slope(name):
        ends = (exact_bound(params | {name: params[name] + sign * step}, num_samples, alpha) for sign in (1, -1))
        return operator.sub(*ends) / (2 * step)

    return {name: slope(name) for name in params}


@functools.cache
def measured(bound, num_samples, num_replicates=100_000):
    loss = partial(gaussian_loss, bound, num_samples=num_samples)
    at_once = 20_000 if num_samples < 10 else 2_000_000 // num_samples
    return gradient_moments(loss, PARAMS, jax.random.key(0), num_replicates, at_once=at_once)


def assert_exact(bound, num_samples, alpha=0.0, resolution=0.15):
    value, slopes = measured(bound, num_samples)
    assert_unbiased(value.mean, value.mean_se, exact_bound(PARAMS, num_samples, alpha), resolution=0.05)
    for name, exact in exact_slopes(num_samples, alpha).items():
        assert_unbiased(slopes.mean[name], slopes.mean_se[name], exact, resolution=resolution)


def test_vimco_of_a_continuous_latent_is_unbiased():
    assert_exact(vimco, 3)


@pytest.mark.parametrize("alpha", [-1.0, 2.0])
@pytest.mark.parametrize("gradient", [plain, doubly_reparameterized])
def test_renyi_bounds_and_every_gradient_of_them_are_the_exact_ones(gradient, alpha):
    assert_exact(partial(renyi, alpha=alpha, gradient=gradient), 2, alpha)


def test_the_squared_weights_alone_are_wrong_for_other_orders():
    """The doubly reparameterized gradient of alpha = 0, used for the path of another order."""

    def wrong(log_joint, q, key, num_samples):
        held = lax.stop_gradient(q)
        samples = distributions.rsample(q, key, num_samples)
        logs = values_at(log_weight(log_joint), samples, held)
        surrogate = (lax.stop_gradient(jax.nn.softmax(0.5 * logs)) ** 2 * logs).sum()
        return surrogate

    _, slopes = measured(wrong, 2)
    assert is_biased(slopes.mean["loc"], slopes.mean_se["loc"], exact_slopes(2, alpha=0.5)["loc"])


def both(bound, num_samples):
    loss = partial(gaussian_loss, bound, key=jax.random.key(4), num_samples=num_samples)
    return jax.device_get(jax.jit(jax.value_and_grad(loss))(PARAMS))


def assert_same(one, other, rtol=1e-5):
    chex.assert_trees_all_close(one, other, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("gradient", [plain, doubly_reparameterized])
def test_the_renyi_bound_of_order_zero_is_the_importance_weighted_one(gradient):
    assert_same(
        both(partial(renyi, alpha=0, gradient=gradient), 7), both(partial(importance_weighted, gradient=gradient), 7)
    )


@pytest.mark.parametrize(
    ("gradient", "estimator"), [(plain, "pathwise"), (doubly_reparameterized, "sticking_the_landing")]
)
def test_the_renyi_bound_of_order_one_is_the_elbo(gradient, estimator):
    expected = both(partial(elbo, estimator=ESTIMATORS[estimator]), 7)
    assert_same(both(partial(renyi, alpha=1.0, gradient=gradient), 7), expected)
    assert_same(both(partial(renyi, alpha=0.99, gradient=gradient), 7), expected, rtol=0.05)


@pytest.mark.usefixtures("float64")
def test_the_renyi_bound_nears_the_elbo_at_first_order():
    gaps = [
        float(both(partial(renyi, alpha=1 + step), 7)[0] - both(partial(renyi, alpha=1), 7)[0]) for step in (1e-2, 1e-3)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.02)


def test_the_chi_bound_is_the_renyi_bound_of_one_minus_its_order():
    assert_same(both(partial(chi, order=2), 7), both(partial(renyi, alpha=-1), 7))
    assert_same(both(partial(chi, order=1), 7), both(importance_weighted, 7))
    logs = jax.jit(lambda key: log_weights(partial(log_joint, 0.3), dist.Normal(0.5, 0.8), key, 7))(jax.random.key(4))
    by_definition = math.log(np.mean(np.exp(3 * np.asarray(logs, float)))) / 3
    assert both(partial(chi, order=3), 7)[0] == pytest.approx(by_definition, rel=1e-5)


@functools.cache
def elbos_of_one_sample():
    return both(elbo, 1)[0], both(partial(elbo, estimator=score_function), 1)[0]


@pytest.mark.parametrize(
    "bound", [importance_weighted, multi_sample_score_function, chi, partial(renyi, alpha=0.5), partial(renyi, alpha=3)]
)
def test_one_sample_gives_the_elbo(bound):
    reparameterized, drawn = elbos_of_one_sample()
    assert both(bound, 1)[0] == pytest.approx(float(drawn), rel=1e-5)
    assert drawn == pytest.approx(float(reparameterized), rel=1e-5)


# The posterior shifted.

SHIFTED = ShiftedPosterior(shift=(0.4, -0.3))
SHIFT = SHIFTED.default_params


def shifted_values(bound, num_samples, num_replicates):
    keys = jax.random.split(jax.random.key(7), num_replicates)
    run = jax.jit(jax.vmap(lambda key: bound(SHIFTED.log_joint, SHIFTED.q(SHIFT), key, num_samples)))
    values = np.asarray(run(keys), float)
    return values.mean(), values.std() / math.sqrt(num_replicates)


@pytest.mark.slow
def test_the_bounds_enclose_the_evidence_in_order():
    num_samples, evidence = 500, SHIFTED.log_evidence
    kinds = {2.0: partial(renyi, alpha=2.0), 1.0: elbo, 0.5: partial(renyi, alpha=0.5), 0.0: importance_weighted}
    kinds |= {-1.0: chi, -2.0: partial(chi, order=3)}
    found = {alpha: shifted_values(bound, num_samples, 2_000) for alpha, bound in kinds.items()}
    for alpha, (mean, error) in found.items():
        exact = SHIFTED.exact_bound(SHIFT, num_samples, alpha=alpha)
        assert_unbiased(mean, error, exact, resolution=0.03)
        # As K grows a bound tends to log p(x) less the Rényi divergence of q from the posterior.
        assert exact == pytest.approx(evidence - alpha * SHIFTED.squared_distance(SHIFT) / 2, abs=0.01)
    means = [mean for mean, _ in found.values()]
    assert means == sorted(means)
    assert means[1] < means[2] < means[3] < evidence + 0.005 < evidence + 0.1 < means[4]


def exact_jackknife(num_samples, order):
    return sum(
        _coefficient(num_samples, order, j) * SHIFTED.exact_bound(SHIFT, num_samples - j) for j in range(order + 1)
    )


@pytest.mark.parametrize(("num_samples", "order"), [(2, 1), (12, 1), (5, 2)])
def test_the_mean_of_the_jackknife_is_exact(num_samples, order):
    mean, error = shifted_values(partial(jackknife, order=order), num_samples, 100_000)
    assert_unbiased(mean, error, exact_jackknife(num_samples, order), resolution=0.1)


def test_the_jackknife_is_less_biased_than_the_bound():
    evidence = SHIFTED.log_evidence
    bound, corrected = (shifted_values(kind, 4, 200_000) for kind in (importance_weighted, jackknife))
    assert is_biased(*bound, evidence)
    assert abs(corrected[0] - evidence) + 6 * corrected[1] < abs(bound[0] - evidence) / 2


@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_jackknife_s_bias_falls_with_its_order(order):
    biases = [abs(exact_jackknife(k, order) - SHIFTED.log_evidence) for k in (20, 40, 80)]
    slopes = np.diff(np.log(biases)) / math.log(2)
    assert slopes[-1] == pytest.approx(-(order + 1), abs=0.15)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", [1, 3])
def test_the_jackknife_is_the_combination_of_its_subsets(order):
    num_samples = 6

    @jax.jit
    def both(shift, key):
        q = SHIFTED.q(shift)
        logs = log_weights(SHIFTED.log_joint, q, key, num_samples)
        return logs, jackknife(SHIFTED.log_joint, q, key, num_samples, order=order)

    logs, got = jax.device_get(both(jax.tree.map(np.asarray, SHIFT), jax.random.key(8)))
    expected = 0.0
    for j in range(order + 1):
        means = [
            logsumexp(logs[list(subset)]) - math.log(num_samples - j)
            for subset in itertools.combinations(range(num_samples), num_samples - j)
        ]
        factor = math.factorial(order - j) * math.factorial(j)
        expected += (-1) ** j * (num_samples - j) ** order / factor * np.mean(means)
    assert got == pytest.approx(expected, abs=1e-11)


def test_the_jackknife_of_order_zero_is_the_bound():
    assert both(partial(jackknife, order=0), 5) == both(importance_weighted, 5)


def test_the_jackknife_keeps_its_digits_at_many_samples():
    """In float32 the difference K L_K - (K - 1) L_-k, written out, would lose them."""

    def log_joint(z):
        return SHIFTED.log_joint(z) - 300.0

    num_samples = 5_000

    @jax.jit
    def both(key):
        return [bound(log_joint, SHIFTED.q(SHIFT), key, num_samples) for bound in (jackknife, log_weights)]

    single, logs = both(jax.random.key(9))
    logs = np.asarray(logs, np.float64)
    total = logsumexp(logs)
    others = total + np.log1p(-np.exp(logs - total)) - math.log(num_samples - 1)
    expected = num_samples * (total - math.log(num_samples)) - (num_samples - 1) * others.mean()
    assert single == pytest.approx(expected, abs=2e-4)


def test_the_jackknife_differentiates_along_the_paths():
    """Its gradient is the slope of what it returns at one key."""
    key = jax.random.key(10)
    with jax.enable_x64(True):

        def loss(loc):
            return jackknife(partial(log_joint, 0.3), dist.Normal(loc, 0.8), key, 6, order=2)

        at, step = jnp.asarray(0.5), 1e-6
        draw = jax.jit(jax.value_and_grad(loss))
        (_, gradient), (above, _), (below, _) = map(draw, (at, at + step, at - step))
        assert gradient == pytest.approx(float((above - below) / (2 * step)), abs=1e-7)


# Signal-to-noise ratios.


SNR_SAMPLES = (8, 32, 128)


def snr_slope(gradient, parameter):
    """The log-log slope of the signal-to-noise ratio against K, and its standard error."""
    logs, errors = [], []
    for num_samples in SNR_SAMPLES:
        statistics = measured(gradient, num_samples, 50_000).gradient
        mean, std = statistics.mean[parameter], statistics.std[parameter]
        logs.append(math.log(abs(mean) / std))
        errors.append(math.hypot(statistics.mean_se[parameter] / mean, statistics.std_se[parameter] / std))
    places = np.log(SNR_SAMPLES) - np.mean(np.log(SNR_SAMPLES))
    weights = places / (places**2).sum()
    return weights @ logs, math.sqrt((weights**2) @ np.square(errors))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gradient", "parameter", "expected"),
    [
        (plain, "loc", -0.5),
        (plain, "model_loc", 0.5),
        pytest.param(doubly_reparameterized, "loc", 0.5, marks=pytest.mark.slow),
    ],
)
def test_the_signal_to_noise_ratio_follows_its_power_of_k(gradient, parameter, expected):
    slope, error = snr_slope(gradient, parameter)
    assert error < 0.05
    assert abs(slope - expected) < 0.08 + 4 * error


# Wake-sleep.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_samples", [1, 5])
def test_the_wake_loss_of_the_model_is_the_bound_s_and_leaves_q_alone(num_samples):
    value, means, _ = enumerated(wake_model_loss, num_samples)
    exact_value, exact = exactly(num_samples)
    assert value == pytest.approx(-float(exact_value), abs=1e-13)
    assert means["model"] == pytest.approx(-float(exact["model"]), abs=1e-13)
    assert means["logits"] == 0


def exact_wake_gradient(num_samples):
    """d/dlogits of the mean of the loss, -E[sum_k w~_k d log q(z_k)], as a sum over the number of heads."""
    probability = 1 / (1 + math.exp(-COIN["logits"]))
    log_ratio = log_odds_of_heads() - COIN["logits"]
    heads = np.arange(num_samples + 1)
    share = heads * np.exp(log_ratio) / (heads * np.exp(log_ratio) + num_samples - heads)
    return float(binom.pmf(heads, num_samples, probability) @ (probability - share))


def log_odds_of_heads():
    """Log odds of heads under the posterior."""
    return float(coin_log_joint(COIN["model"], 1.0)) - float(coin_log_joint(COIN["model"], 0.0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_samples", [1, 5])
def test_the_wake_loss_of_q_has_the_reweighted_gradient_and_leaves_the_model_alone(num_samples):
    _, means, _ = enumerated(wake_inference_loss, num_samples)
    assert means["logits"] == pytest.approx(exact_wake_gradient(num_samples), abs=1e-13)
    assert means["model"] == 0


@pytest.mark.usefixtures("float64")
def test_the_wake_loss_of_q_is_consistent_and_biased_by_one_over_k():
    probability, posterior = (1 / (1 + math.exp(-logits)) for logits in (COIN["logits"], log_odds_of_heads()))
    few, many, more = (exact_wake_gradient(k) - (probability - posterior) for k in (2, 500, 1_000))
    assert exact_wake_gradient(1) == pytest.approx(0, abs=1e-14)
    assert abs(few) > 0.05
    assert abs(more) < 1e-3
    assert more / many == pytest.approx(0.5, abs=0.005)


def undetached(log_joint, q, key, num_samples):
    samples = distributions.sample(q, key, num_samples)
    weights = jax.nn.softmax(values_at(log_weight(log_joint), samples, q))
    return -(weights * jax.vmap(distributions.log_prob, (None, 0))(q, samples)).sum()


def favouring_the_worst(log_joint, q, key, num_samples):
    samples = distributions.sample(q, key, num_samples)
    weights = lax.stop_gradient(jax.nn.softmax(-values_at(log_weight(log_joint), samples, q)))
    return -(weights * jax.vmap(distributions.log_prob, (None, 0))(q, samples)).sum()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("wrong", "leaks"), [(undetached, True), (favouring_the_worst, False)])
def test_wrong_weights_are_caught(wrong, leaks):
    _, means, _ = enumerated(wrong, 5)
    assert abs(means["logits"] - exact_wake_gradient(5)) > 0.05
    assert (abs(means["model"]) > 0.05) == leaks


def test_the_wake_losses_of_one_key_share_their_samples_and_add_up():
    def together(params):
        return sum(gaussian_loss(loss, params, KEY, 6) for loss in (wake_model_loss, wake_inference_loss))

    gradient = jax.jit(jax.grad(together))(PARAMS)
    model, inference = (
        jax.jit(jax.grad(partial(gaussian_loss, loss)), static_argnums=2)(PARAMS, KEY, 6)
        for loss in (wake_model_loss, wake_inference_loss)
    )
    assert model["loc"] == model["scale"] == inference["model_loc"] == 0
    assert_same(gradient, {"model_loc": model["model_loc"], "loc": inference["loc"], "scale": inference["scale"]})


KEY = jax.random.key(11)


def test_the_sleep_loss_is_the_cross_entropy_under_the_model():
    """z ~ N(m, 1), x ~ N(z, 1), q(z|x) = N(slope x, scale^2)."""

    def loss(params, key):
        def sample_joint(key):
            of_z, of_x = jax.random.split(key)
            z = params["model_loc"] + jax.random.normal(of_z)
            return z, z + jax.random.normal(of_x)

        return sleep_loss(sample_joint, lambda x: dist.Normal(params["slope"] * x, params["scale"]), key, 3)

    def exact(params):
        slope, scale, model_loc = params["slope"], params["scale"], 0.3
        square = (1 - slope) ** 2 * (1 + model_loc**2) + slope**2
        return jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi) + square / (2 * scale**2)

    params = {"model_loc": jnp.float32(0.3), "slope": jnp.float32(0.4), "scale": jnp.float32(0.9)}
    value, gradient = gradient_moments(loss, params, jax.random.key(12), 100_000)
    exact_value, slopes = jax.jit(jax.value_and_grad(exact))(params)
    assert_unbiased(value.mean, value.mean_se, exact_value, resolution=0.03)
    for name in ("slope", "scale"):
        assert_unbiased(gradient.mean[name], gradient.mean_se[name], slopes[name], resolution=0.1)
    assert gradient.mean["model_loc"] == gradient.std["model_loc"] == 0
    assert is_biased(value.mean, value.mean_se, exact_value + 0.05)


# All of them.

BOUNDS = {
    "vimco": partial(importance_weighted, gradient=vimco),
    "jackknife": jackknife,
    "wake_inference_loss": wake_inference_loss,
}


@pytest.mark.parametrize(
    "name", [name if name == "wake_inference_loss" else pytest.param(name, marks=pytest.mark.slow) for name in BOUNDS]
)
def test_jit_and_vmap_equal_eager(name):
    keys = jax.random.split(jax.random.key(13), 3)

    def loss(params, key):
        q = {"a": dist.Normal(params["loc"], 1.0).to_event(1), "b": dist.Normal(params["b"], 0.5)}

        def log_joint(z):
            return -((z["a"] - 1) ** 2).sum() - (z["b"] - z["a"].sum()) ** 2 + params["model"] * z["b"]

        return BOUNDS[name](log_joint, q, key, 5)

    params = {"loc": jnp.ones(3), "b": jnp.float32(0.2), "model": jnp.float32(0.1)}
    with jax.numpy_rank_promotion("allow"):
        eager = jax.value_and_grad(loss)(params, keys[0])
        jitted = jax.jit(jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0)))(params, keys)
    chex.assert_trees_all_close(eager, jax.tree.map(lambda leaf: leaf[0], jitted), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", [vimco, multi_sample_score_function, wake_model_loss, wake_inference_loss])
def test_bounds_and_losses_have_one_signature(gradient):
    assert list(inspect.signature(gradient).parameters) == ["log_joint", "q", "key", "num_samples"]


@pytest.mark.parametrize("loss", [vimco, multi_sample_score_function, wake_model_loss, wake_inference_loss])
def test_discrete_latents_of_numpyro(loss):
    def at(logits):
        return loss(partial(coin_log_joint, 0.6), dist.Bernoulli(logits=logits), KEY, 4)

    value, gradient = jax.jit(jax.value_and_grad(at))(jnp.float32(-0.8))
    assert np.isfinite(value)
    assert np.isfinite(gradient)


NORMAL = dist.Normal(0.0, 1.0)
BERNOULLI = dist.Bernoulli(logits=0.3)
NAIVE = partial(log_joint, 0.3)
MISUSES = [
    (ValueError, "vimco needs at least 2 samples, got 1: raise num_samples, or use elbo", lambda key: (
        importance_weighted(NAIVE, NORMAL, key, 1, gradient=vimco))),
    (ValueError, "num_samples must be at least 1, got 0", lambda key: vimco(NAIVE, NORMAL, key, 0)),
    (ValueError, "num_samples must be at least 1, got 0", lambda key: wake_inference_loss(NAIVE, NORMAL, key, 0)),
    (ValueError, "num_samples must be at least 1, got 0", lambda key: sleep_loss(lambda k: (k, k), NAIVE, key, 0)),
    (ValueError, r"gradient must be plain or doubly_reparameterized, got vimco", lambda key: (
        renyi(NAIVE, NORMAL, key, 3, alpha=0.5, gradient=vimco))),
    (ValueError, "alpha must be finite, got inf", lambda key: renyi(NAIVE, NORMAL, key, 3, alpha=math.inf)),
    (ValueError, "order must be at least 1, got 0.5", lambda key: chi(NAIVE, NORMAL, key, 3, order=0.5)),
    (ValueError, "order must be at least 0, got -1", lambda key: jackknife(NAIVE, NORMAL, key, 3, order=-1)),
    (ValueError, "num_samples must be more than the order 1, got 1", lambda key: jackknife(NAIVE, NORMAL, key, 1)),
    (TypeError, "q is a Bernoulli.*, which has no reparameterized sampler", lambda key: (
        renyi(NAIVE, BERNOULLI, key, 3, alpha=0.5))),
    (TypeError, "q is a Bernoulli.*, which has no reparameterized sampler", lambda key: (
        jackknife(NAIVE, BERNOULLI, key, 3))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), MISUSES)
def test_misuse_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call(jax.random.key(0))


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", [*ESTIMATORS, "in_blocks"])
def test_an_estimator_of_an_expectation_is_no_gradient_of_a_bound(name, num_samples):
    estimator = ESTIMATORS.get(name) or in_blocks(pathwise, 2)
    message = r"got the estimator \w+: use doubly_reparameterized instead of sticking_the_landing"
    with pytest.raises(TypeError, match=message):
        importance_weighted(NAIVE, NORMAL, KEY, num_samples, gradient=estimator)


def test_a_traced_order_is_refused():
    with pytest.raises(TypeError):
        jax.jit(lambda alpha: renyi(NAIVE, NORMAL, KEY, 3, alpha=alpha))(0.5)


def test_sticking_the_landing_in_a_bound_would_be_biased():
    """Why it is refused: q held fixed and the path not slowed."""

    def stuck(log_joint, q, key, num_samples):
        samples = distributions.rsample(q, key, num_samples)
        return log_mean_exp(values_at(log_weight(log_joint), samples, lax.stop_gradient(q)))

    _, slopes = measured(stuck, 3)
    assert is_biased(slopes.mean["loc"], slopes.mean_se["loc"], exact_slopes(3)["loc"])
