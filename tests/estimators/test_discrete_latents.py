"""The estimators of discrete latents, against sums over all outcomes that are written out here."""

import itertools
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy.special import expit, softmax

from gradient_moments import gradient_moments
from monte_carlo import assert_unbiased, is_biased
from vae_jax import distributions, pathwise
from vae_jax.distributions import OneHotCategorical
from vae_jax.estimators import discrete_latents as discrete
from vae_jax.estimators import in_blocks
from vae_jax.estimators.arm import arm, categorical_disarm, disarm
from vae_jax.estimators.enumeration import enumeration, rao_blackwellized
from vae_jax.estimators.gumbel_softmax import gumbel_softmax, straight_through
from vae_jax.estimators.measure_valued import coupled_measure_valued, measure_valued
from vae_jax.estimators.rebar import rebar, relax, surrogate_loss


def quadratic_surrogate(relaxed):
    return sum(0.3 * (leaf**2).sum() - 0.5 * leaf.sum() for leaf in jax.tree.leaves(relaxed))


ON_BERNOULLI = {"arm": arm, "disarm": disarm}
ON_ANY = {
    "enumeration": enumeration,
    "rao_blackwellized": rao_blackwellized,
    "rao_blackwellized over k": partial(rao_blackwellized, over=["k"]),
    "rao_blackwellized with rebar": partial(rao_blackwellized, over=["k"], estimator=rebar),
    "rebar": rebar,
    "relax": partial(relax, surrogate=quadratic_surrogate),
    "categorical_disarm": categorical_disarm,
}
BIASED = {"gumbel_softmax": gumbel_softmax, "straight_through": straight_through}

PARAMS = {
    "weight": jnp.float32(0.8),
    "b": jnp.asarray([0.4, -0.9]),
    "k": jnp.asarray([[0.2, -0.5, 0.9], [1.0, 0.1, -0.3]]),
}


def mixed_q(params):
    return {"b": dist.Bernoulli(logits=params["b"]).to_event(1), "k": OneHotCategorical(params["k"]).to_event(1)}


def bernoulli_q(params):
    return {"b": dist.Bernoulli(logits=params["b"]).to_event(1), "c": dist.Bernoulli(logits=params["k"]).to_event(2)}


MATRIX = jnp.asarray([[0.5, -1.0, 0.3], [0.2, 0.7, -0.8]])


def cost(weight, sample):
    """Couples all the latents, and is not linear in any."""
    other = sample["k"] if "k" in sample else sample["c"]
    return (
        weight * ((sample["b"][:, None] * other * MATRIX).sum() + sample["b"][0] - 0.4) ** 2 + other[0, 1] * weight**2
    )


def elbo_like(params, key, *, build_q, estimator, num_samples):
    def objective(sample, q):
        return cost(params["weight"], sample) - 0.3 * distributions.log_prob(q, sample)

    return estimator(objective, build_q(params), key, num_samples)


@jax.jit
@jax.value_and_grad
def mixed_truth(params):
    """The sum over 2^2 3^2 outcomes, from probabilities and softmax alone."""
    bits = np.asarray(list(itertools.product([0, 1], repeat=2)), np.float32)
    categories = np.eye(3, dtype=np.float32)[list(itertools.product(range(3), repeat=2))]
    probs_b, probs_k = jax.nn.sigmoid(params["b"]), jax.nn.softmax(params["k"])

    def term(b, k):
        prob = jnp.where(b == 1, probs_b, 1 - probs_b).prod() * (k * probs_k).sum(axis=1).prod()
        return prob * (cost(params["weight"], {"b": b, "k": k}) - 0.3 * jnp.log(prob))

    return jax.vmap(jax.vmap(term, (None, 0)), (0, None))(bits, categories).sum()


@jax.jit
@jax.value_and_grad
def bernoulli_truth(params):
    """The sum over 2^8 outcomes."""
    probs = jax.nn.sigmoid(jnp.concatenate([params["b"], params["k"].ravel()]))
    bits = np.asarray(list(itertools.product([0, 1], repeat=8)), np.float32)
    prob = jnp.where(bits == 1, probs[None], 1 - probs[None]).prod(axis=1)
    costs = jax.vmap(lambda z: cost(params["weight"], {"b": z[:2], "c": z[2:].reshape(2, 3)}))(bits)
    return (prob * (costs - 0.3 * jnp.log(prob))).sum()


CASES = [(mixed_q, mixed_truth, name, estimator) for name, estimator in ON_ANY.items()] + [
    (bernoulli_q, bernoulli_truth, name, estimator) for name, estimator in ON_BERNOULLI.items()
]


@pytest.mark.parametrize(("build_q", "truth", "name", "estimator"), CASES, ids=[case[2] for case in CASES])
def test_model_and_inference_gradients_are_right(build_q, truth, name, estimator):
    loss = partial(elbo_like, build_q=build_q, estimator=estimator, num_samples=2)
    exact_value, exact_gradient = truth(PARAMS)
    value, gradient = gradient_moments(loss, PARAMS, jax.random.key(1), 60_000)
    # An estimator without variance errs by rounding.
    assert_unbiased(value.mean, value.mean_se + 1e-5, exact_value, resolution=0.1)
    for parameter in PARAMS:
        error = np.asarray(gradient.mean_se[parameter]) + 1e-5
        assert_unbiased(gradient.mean[parameter], error, exact_gradient[parameter], resolution=0.1)


@pytest.mark.parametrize("name", BIASED)
def test_relaxations_are_caught_as_biased_in_q_s_parameters(name):
    loss = partial(elbo_like, build_q=mixed_q, estimator=BIASED[name], num_samples=2)
    exact_value, exact = mixed_truth(PARAMS)
    value, gradient = gradient_moments(loss, PARAMS, jax.random.key(2), 60_000)
    assert is_biased(gradient.mean["b"], gradient.mean_se["b"], exact["b"])
    assert is_biased(gradient.mean["k"], gradient.mean_se["k"], exact["k"])
    hard = name == "straight_through"
    assert is_biased(value.mean, value.mean_se, exact_value) != hard
    assert is_biased(gradient.mean["weight"], gradient.mean_se["weight"], exact["weight"]) != hard


def bernoulli_loss(params, key, *, estimator, num_samples=2):
    q = dist.Bernoulli(logits=params["logit"])
    return estimator(lambda b, q: (b - 0.45) ** 2, q, key, num_samples)


BERNOULLI_PARAMS = {"logit": jnp.float32(0.7)}
BERNOULLI_GRADIENT = expit(0.7) * expit(-0.7) * 0.1


def one_hot_loss(params, key, *, estimator, num_samples=2):
    def objective(z, q):
        return ((z * jnp.asarray([0.3, -1.0, 0.8])).sum() - 0.2) ** 2

    return estimator(objective, OneHotCategorical(params["logits"]), key, num_samples)


ONE_HOT_PARAMS = {"logits": jnp.asarray([0.5, -0.2, 0.1])}


def one_hot_gradient():
    """d sum_i p_i c_i / d logits, by the derivative of a softmax."""
    costs = (np.asarray([0.3, -1.0, 0.8]) - 0.2) ** 2
    probs = softmax(np.asarray(ONE_HOT_PARAMS["logits"], float))
    return probs * (costs - probs @ costs)


# Traced together, so that the grid costs one compilation.
GRID = [(0.0, 0.5), (0.5, 0.1), (1.0, 0.5), (1.0, 2.0), (-2.0, 1.0)]


def gradients_over_grid(loss, params, num_replicates, make):
    def draw(key, scale, temperature):
        return jax.grad(partial(loss, estimator=make(scale, temperature)))(params, key)

    keys = jax.random.split(jax.random.key(3), num_replicates)
    scales, temperatures = (jnp.asarray(column) for column in zip(*GRID, strict=True))
    across = jax.vmap(jax.vmap(draw, in_axes=(0, None, None)), in_axes=(None, 0, 0))
    (gradients,) = jax.jit(across)(keys, scales, temperatures).values()
    gradients = np.asarray(gradients, np.float64)
    return gradients.mean(axis=1), gradients.std(axis=1) / np.sqrt(num_replicates)


def make_rebar(scale, temperature):
    return partial(rebar, scale=scale, temperature=temperature)


def make_relax(scale, temperature):
    return partial(relax, surrogate=lambda r: scale * quadratic_surrogate(r), temperature=temperature)


@pytest.mark.parametrize("make", [make_rebar, make_relax])
def test_any_scale_and_temperature_is_unbiased(make):
    mean, error = gradients_over_grid(bernoulli_loss, BERNOULLI_PARAMS, 100_000, make)
    assert_unbiased(mean, error, BERNOULLI_GRADIENT, resolution=0.02)
    mean, error = gradients_over_grid(one_hot_loss, ONE_HOT_PARAMS, 100_000, make)
    assert_unbiased(mean, error, one_hot_gradient(), resolution=0.06)


@pytest.mark.parametrize(
    ("latent", "loss", "params", "exact"),
    [
        (discrete.BernoulliLatent, bernoulli_loss, BERNOULLI_PARAMS, BERNOULLI_GRADIENT),
        (discrete.OneHotLatent, one_hot_loss, ONE_HOT_PARAMS, one_hot_gradient()),
    ],
)
def test_without_its_conditional_term_rebar_is_caught(latent, loss, params, exact, monkeypatch):
    monkeypatch.setattr(latent, "conditional_slope", lambda self, noisy, hard: jnp.zeros_like(noisy))
    gradient = gradient_moments(partial(loss, estimator=rebar), params, jax.random.key(4), 160_000).gradient
    (mean,), (error,) = gradient.mean.values(), gradient.mean_se.values()
    assert is_biased(mean, error, exact)


CONTROLS = [
    ("_arm_coefficient", arm, lambda logits, pair: 0.5 - pair.uniform),
    ("_disarm_coefficient", disarm, lambda logits, pair: 0.5 * pair.bits - 0.5 * pair.antithetic),
    ("_reached", categorical_disarm, lambda pair, last: jnp.arange(pair.bits.shape[-1])[None] < last[..., None]),
]


@pytest.mark.parametrize(("part", "estimator", "wrong"), CONTROLS, ids=["sign", "factor", "mask"])
def test_wrong_couplings_are_caught(part, estimator, wrong, monkeypatch):
    def run():
        loss, params, exact = bernoulli_loss, BERNOULLI_PARAMS, BERNOULLI_GRADIENT
        if estimator is categorical_disarm:
            loss, params, exact = one_hot_loss, ONE_HOT_PARAMS, one_hot_gradient()
        gradient = gradient_moments(partial(loss, estimator=estimator), params, jax.random.key(5), 40_000).gradient
        (mean,), (error,) = gradient.mean.values(), gradient.mean_se.values()
        return is_biased(mean, error, exact)

    assert not run()
    # The package's `arm` is the function, not the file of that name.
    monkeypatch.setattr(sys.modules[estimator.__module__], part, wrong)
    assert run()


def tucker_conditional(logit, v, hard):
    """logit + logit(u'), u' uniform where the hard sample is `hard`."""
    prob = jax.nn.sigmoid(logit)
    u = v * prob + 1 - prob if hard else v * (1 - prob)
    return logit + jnp.log(u) - jnp.log1p(-u)


@pytest.mark.parametrize("hard", [0, 1])
def test_the_bernoulli_s_conditional_path_is_that_of_the_paper(hard, float64):
    logits, vs = np.asarray([0.7, -1.3, 0.0]), np.asarray([0.2, 0.9, 0.5])

    @jax.jit
    @jax.vmap
    def slopes(logit, v):
        z, slope = jax.value_and_grad(tucker_conditional)(logit, v, hard)
        got = discrete.BernoulliLatent("q", logit).conditional_slope(z[None], jnp.full(1, float(hard)))
        return z, slope, got[0]

    z, expected, got = slopes(logits, vs)
    assert np.all((np.asarray(z) > 0) == hard)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def grathwohl_conditional(log_probs, v, category):
    """Gumbels given that the largest of them is at `category`."""
    top = -jnp.log(-jnp.log(v[category]))
    others = -jnp.log(-jnp.log(v) / jnp.exp(log_probs) - jnp.log(v[category]))
    return jnp.where(jnp.arange(v.size) == category, top, others)


@pytest.mark.parametrize("category", [0, 1, 2])
def test_the_categorical_s_conditional_path_is_that_of_the_paper(category, float64):
    @jax.jit
    def slopes(logits, v, category):
        latent = discrete.OneHotLatent("q", jax.nn.log_softmax(logits))
        z = grathwohl_conditional(latent.logits, v, category)
        expected = jax.jacobian(grathwohl_conditional)(latent.logits, v, category)
        got = latent.conditional_slope(z[None], jax.nn.one_hot(category, 3)[None])
        return z, expected, jnp.diag(got[0])

    z, expected, got = slopes(np.asarray([0.5, -0.2, 0.1]), np.asarray([0.3, 0.8, 0.1]), category)
    assert np.argmax(z) == category
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["rebar", "relax"])
def test_nothing_but_the_hard_objective_reaches_model_and_surrogate_parameters(name):
    """Along the path of the relaxed objective, a model's gradient would have more noise and be of another order."""

    def loss(weight, surrogate_weight):
        estimators = {
            "rebar": partial(rebar, scale=surrogate_weight),
            "relax": partial(relax, surrogate=lambda r: surrogate_weight * quadratic_surrogate(r)),
        }
        return estimators[name](lambda z, q: cost(weight, z), mixed_q(PARAMS), jax.random.key(6), 5)

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    (value, first), (_, other) = (both(0.8, scale) for scale in (0.3, 2.0))
    assert first[0] == pytest.approx(float(other[0]), rel=1e-6)
    assert first[1] == other[1] == 0
    hard = jax.jit(lambda key: straight_through(lambda z, q: cost(0.8, z), mixed_q(PARAMS), key, 5))
    assert value == pytest.approx(float(hard(jax.random.key(6))), rel=1e-6)


def trained(weights, relaxed):
    b, k = relaxed["b"], relaxed["k"].ravel()
    features = jnp.concatenate([b, k, jnp.outer(b, k).ravel(), b**2])
    return (weights * features).sum()


def relax_with(weights):
    return partial(relax, surrogate=partial(trained, weights))


@pytest.mark.slow
def test_training_the_surrogate_lowers_the_variance():
    def objective(z, q):
        return cost(0.8, z)

    def surrogate_objective(weights, key):
        return surrogate_loss(objective, mixed_q(PARAMS), key, 32, surrogate=partial(trained, weights))

    optimizer = optax.adam(0.03)

    def step(carry, key):
        weights, state = carry
        updates, state = optimizer.update(jax.grad(surrogate_objective)(weights, key), state)
        return (optax.apply_updates(weights, updates), state), None

    start = jnp.zeros(22)
    keys = jax.random.split(jax.random.key(7), 300)
    (weights, _), _ = jax.jit(partial(jax.lax.scan, step))((start, optimizer.init(start)), keys)

    def total_variance(estimator):
        loss = partial(elbo_like, build_q=mixed_q, estimator=estimator, num_samples=1)
        variance = gradient_moments(loss, PARAMS, jax.random.key(8), 20_000).gradient.variance
        return sum(float(variance[name].sum()) for name in ("b", "k"))

    assert total_variance(relax_with(weights)) < 0.6 * total_variance(relax_with(start))


def test_the_surrogate_s_loss_is_the_squared_norm_of_the_gradient():
    weights = jnp.linspace(-0.5, 0.5, 22)
    key = jax.random.key(9)

    def objective(z, q):
        return cost(0.8, z)

    def gradient(params):
        return relax_with(weights)(objective, mixed_q(params), key, 1)

    norm = sum((leaf**2).sum() for leaf in jax.tree.leaves(jax.jit(jax.grad(gradient))(PARAMS)))
    loss = jax.jit(lambda w: surrogate_loss(objective, mixed_q(PARAMS), key, 1, surrogate=partial(trained, w)))(weights)
    assert loss == pytest.approx(float(norm), rel=1e-5)


def test_without_a_surrogate_relax_is_the_score_function():
    key = jax.random.key(10)

    def gradient(logit):
        return relax(lambda b, q: (b - 0.45) ** 2, dist.Bernoulli(logits=logit), key, 1)

    # Straight-through draws the same hard sample from the same key.
    b = float(jax.jit(lambda logit: straight_through(lambda b, q: b, dist.Bernoulli(logits=logit), key, 1))(0.7))
    expected = (b - 0.45) ** 2 * (b - expit(0.7))
    assert jax.jit(jax.grad(gradient))(0.7) == pytest.approx(expected, rel=1e-5)


FAMILIES = {
    "logits": lambda p: dist.Bernoulli(logits=p[0]),
    "probs": lambda p: dist.Bernoulli(probs=jax.nn.sigmoid(p[0])),
    "expanded": lambda p: dist.Bernoulli(logits=p[0]).expand([2]).to_event(1),
    "categorical": lambda p: dist.Categorical(logits=p),
    "categorical probs": lambda p: dist.Categorical(probs=jax.nn.softmax(p)),
    "one hot": OneHotCategorical,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_enumeration_agrees_with_the_distribution_s_own_moments(family):
    """The entropy, and for numbers the mean, differentiated."""

    def expected(p):
        return enumeration(
            lambda z, q: -distributions.log_prob(q, z) + jnp.sum(z), FAMILIES[family](p), jax.random.key(0), 1
        )

    def known(p):
        if family in ("logits", "probs", "expanded"):
            number = 2 if family == "expanded" else 1
            prob = jax.nn.sigmoid(p[0])
            return number * (prob - prob * jnp.log(prob) - (1 - prob) * jnp.log1p(-prob))
        probs = jax.nn.softmax(p)
        mean = 1.0 if family == "one hot" else probs @ jnp.arange(3.0)
        return mean - probs @ jnp.log(probs)

    @jax.jit
    def derivatives(p):
        return [(f(p), jax.grad(f)(p), jax.hessian(f)(p)) for f in (expected, known)]

    got, exact = derivatives(jnp.asarray([0.3, -0.8, 0.5]))
    for one, other in zip(got, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_an_outcome_without_mass_adds_nothing():
    def entropy(probs):
        q = dist.Categorical(probs=probs)
        return enumeration(lambda z, q: -distributions.log_prob(q, z), q, jax.random.key(0), 1)

    value, gradient = jax.jit(jax.value_and_grad(entropy))(jnp.asarray([0.5, 0.5, 0.0]))
    assert value == pytest.approx(np.log(2), rel=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "estimator", [enumeration, rao_blackwellized, categorical_disarm, measure_valued, coupled_measure_valued]
)
def test_an_impossible_outcome_leaves_value_and_gradient_right(estimator):
    """A masked action, say: its logit is minus infinity."""
    costs, probs = np.float32([1.0, 2.0, 5.0]), np.float32([0.0, 0.4, 0.6])

    def loss(params, key):
        p = jnp.asarray(probs) + params["p"] * jnp.asarray([0.0, -1.0, 1.0])
        return estimator(lambda z, q: jnp.asarray(costs)[z], dist.Categorical(probs=p), key, 4)

    found = gradient_moments(loss, {"p": jnp.zeros(())}, jax.random.key(0), 20_000)
    assert_unbiased(found.value.mean, found.value.mean_se + 1e-6, 3.8, resolution=0.2)
    assert_unbiased(found.gradient.mean["p"], found.gradient.mean_se["p"] + 1e-6, 3.0, resolution=0.3)


EXACT_AT_THE_EDGE = {
    "enumeration": enumeration,
    "measure_valued": measure_valued,
    "coupled_measure_valued": coupled_measure_valued,
    "rao_blackwellized": rao_blackwellized,
}


@pytest.mark.parametrize("estimator", EXACT_AT_THE_EDGE.values(), ids=EXACT_AT_THE_EDGE)
def test_probabilities_of_exactly_zero_and_one_keep_their_derivatives(estimator):
    def of_coin(prob):
        return estimator(lambda z, q: 1 + 3.0 * z, dist.Bernoulli(probs=prob), jax.random.key(0), 8)

    for prob in (0.0, 0.3, 1.0):
        assert jax.grad(of_coin)(prob) == pytest.approx(3, rel=1e-6)

    costs = jnp.array([1.0, 5.0, 2.0])

    def of_die(probs):
        return estimator(lambda z, q: costs[z], dist.Categorical(probs=probs), jax.random.key(0), 20_000)

    probs = jnp.array([0.0, 0.5, 0.5])
    gradient = jax.jit(jax.grad(of_die))(probs)
    np.testing.assert_allclose(gradient, jax.grad(lambda p: p @ costs / p.sum())(probs), atol=0.1)


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_a_vector_with_an_outcome_of_no_mass_has_the_exact_gradient(prob):
    def cost(probs, estimator):
        q = dist.Bernoulli(probs=probs).to_event(1)
        return estimator(lambda z, q: (1 + 3.0 * z[0]) * (1 + z[1]), q, jax.random.key(0), 20_000)

    probs = jnp.array([prob, 0.25])
    exact = [3 * 1.25, 1 + 3 * prob]
    np.testing.assert_allclose(jax.grad(partial(cost, estimator=enumeration))(probs), exact, rtol=1e-6)
    np.testing.assert_allclose(jax.hessian(partial(cost, estimator=enumeration))(probs), [[0, 3], [3, 0]], atol=1e-6)
    measured = jax.jit(jax.grad(partial(cost, estimator=measure_valued)))(probs)
    np.testing.assert_allclose(measured, exact, atol=0.1)


def test_discrete_latents_enumerated_and_continuous_ones_reparameterized():
    """A mixture of normals, whose second moment is known."""

    def loss(params, key):
        q = {"b": dist.Bernoulli(logits=params["logit"]), "u": dist.Normal(params["loc"], 0.5)}
        mixed = partial(rao_blackwellized, estimator=pathwise)
        return mixed(lambda z, q: (z["u"] + 2 * z["b"]) ** 2, q, key, 2)

    def exact(params):
        p = jax.nn.sigmoid(params["logit"])
        return p * (params["loc"] + 2) ** 2 + (1 - p) * params["loc"] ** 2 + 0.25

    params = {"logit": jnp.float32(0.4), "loc": jnp.float32(-0.3)}
    gradient = gradient_moments(loss, params, jax.random.key(11), 20_000).gradient
    for name, truth in jax.grad(exact)(params).items():
        assert_unbiased(gradient.mean[name], gradient.mean_se[name], truth, resolution=0.15)


def test_of_one_vector_the_first_entry_is_enumerated():
    def loss(params, key):
        q = dist.Bernoulli(logits=params).to_event(1)
        return rao_blackwellized(lambda z, q: z[0] * 3.0, q, key, 1)

    draw = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    gradients = draw(jnp.asarray([0.4, 0.6]), jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(gradients[:, 0], 3 * expit(0.4) * expit(-0.4), rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "params"),
    [
        (bernoulli_loss, BERNOULLI_PARAMS),
        # One operation after another is compiled here by itself, and of a pytree there are hundreds.
        pytest.param(partial(elbo_like, build_q=mixed_q), PARAMS, marks=pytest.mark.slow),
    ],
    ids=["bernoulli", "mixed"],
)
def test_jit_and_vmap_equal_eager(loss, params):
    draw = jax.value_and_grad(partial(loss, estimator=rebar, num_samples=4))
    keys = jax.random.split(jax.random.key(12), 2)
    eager = draw(params, keys[1])
    jitted = jax.tree.map(lambda x: x[1], jax.jit(jax.vmap(draw, in_axes=(None, 0)))(params, keys))
    chex.assert_trees_all_close(eager, jitted, rtol=1e-3, atol=1e-5)


VARIATIONS = [pytest.param(name, marks=pytest.mark.slow) if " " in name else name for name in ON_ANY]


@pytest.mark.parametrize("name", [*VARIATIONS, *ON_BERNOULLI, *BIASED])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_stay_in_blocks_too(name, dtype, float64):
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    build_q = bernoulli_q if name in ON_BERNOULLI else mixed_q
    estimator = (ON_ANY | ON_BERNOULLI | BIASED)[name]
    loss = partial(elbo_like, build_q=build_q, estimator=in_blocks(estimator, 2), num_samples=4)
    shapes = jax.eval_shape(jax.grad(loss), params, jax.random.key(13))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", ["arm", "disarm", "categorical_disarm", "rebar", "enumeration"])
def test_extreme_logits_stay_finite(name):
    estimator = (ON_ANY | ON_BERNOULLI)[name]
    draw = jax.jit(jax.vmap(jax.grad(partial(bernoulli_loss, estimator=estimator)), in_axes=(0, None)))
    gradients = draw({"logit": jnp.asarray([-80.0, 0.0, 80.0])}, jax.random.key(14))
    assert jnp.isfinite(gradients["logit"]).all()


@pytest.mark.parametrize("estimator", [enumeration, rebar, arm, disarm, categorical_disarm])
def test_a_logit_of_zero_is_no_exception(estimator):
    loss = partial(bernoulli_loss, estimator=estimator)
    gradient = gradient_moments(loss, {"logit": jnp.float32(0.0)}, jax.random.key(15), 20_000).gradient
    assert_unbiased(gradient.mean["logit"], gradient.mean_se["logit"] + 1e-6, 0.025, resolution=0.02)


def test_one_hot_categorical_is_a_distribution():
    logits = jnp.asarray([[0.5, -0.2, 0.1], [0.0, 2.0, -1.0]])
    q = OneHotCategorical(logits)
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((2,), (3,), False)
    samples = q.sample(jax.random.key(0), (50_000,))
    assert samples.shape == (50_000, 2, 3)
    assert np.all(np.sum(samples, axis=-1) == 1)
    probs = softmax(np.asarray(logits, float), axis=1)
    error = np.sqrt(probs * (1 - probs) / 50_000)
    assert_unbiased(np.mean(samples, axis=0), error, probs, resolution=0.05)
    np.testing.assert_allclose(q.log_prob(np.eye(3, dtype=np.float32)[:2]), np.log(np.diag(probs)), rtol=1e-5)
    np.testing.assert_allclose(q.entropy(), -(probs * np.log(probs)).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(q.mean, probs, rtol=1e-6)


KEY = jax.random.key(0)
BERNOULLI, CATEGORICAL, ONE_HOT = (
    dist.Bernoulli(logits=0.3),
    dist.Categorical(logits=jnp.zeros(3)),
    OneHotCategorical(jnp.zeros(3)),
)


def constant(z, q):
    return 1.0


CONTINUOUS = {"b": BERNOULLI, "u": dist.Normal(0.0, 1.0)}
ALL = [enumeration, gumbel_softmax, straight_through, rebar, relax, arm, disarm, categorical_disarm]
MISUSES = [
    *((TypeError, r"q\['u'\] must be .* got a Normal, which is continuous: use pathwise or score_function",
       lambda e=e: e(constant, CONTINUOUS, KEY, 2)) for e in ALL),
    *((TypeError, r"q must be .* got a Poisson, which has no finite list of outcomes here: use score_function",
       lambda e=e: e(constant, dist.Poisson(2.0), KEY, 2)) for e in ALL),
    *((ValueError, "q must hold at least one distribution", lambda e=e: e(constant, {}, KEY, 2)) for e in ALL),
    *((ValueError, r"empty batch shape, got \(2,\)", lambda e=e: (
        e(constant, dist.Bernoulli(logits=jnp.zeros(2)), KEY, 2))) for e in ALL),
    *((ValueError, f"num_samples must be .*at least .* got {n}", lambda e=e, n=n: (
        e(constant, BERNOULLI, KEY, n))) for e in (arm, disarm, categorical_disarm) for n in (0, 1, 3)),
    *((TypeError, r"q\['k'\] must be a Bernoulli, got a categorical latent: use categorical_disarm", lambda e=e: (
        e(constant, {"k": ONE_HOT}, KEY, 2))) for e in (arm, disarm)),
    *((TypeError, r"q\['k'\] must have samples that can be relaxed, got a Categorical .*OneHotCategorical",
       lambda e=e: e(constant, {"k": CATEGORICAL}, KEY, 2)) for e in (gumbel_softmax, straight_through, rebar, relax)),
    *((ValueError, f"temperature must be positive, got {t}", lambda e=e, t=t: (
        e(constant, BERNOULLI, KEY, 2, temperature=t)))
      for e in (gumbel_softmax, straight_through, rebar, relax) for t in (0.0, -1.0)),
    (ValueError, "at most 65,536 joint outcomes to enumerate, got 131,072: use rao_blackwellized", lambda: (
        enumeration(constant, dist.Bernoulli(logits=jnp.zeros(17)).to_event(1), KEY, 1))),
    (ValueError, r"got about 2\^500: use rao_blackwellized", lambda: (
        enumeration(constant, dist.Bernoulli(logits=jnp.zeros(500)).to_event(1), KEY, 1))),
    (TypeError, r"q\['u'\] must be .* got a Normal", lambda: (
        rao_blackwellized(constant, {"u": dist.Normal(0.0, 1.0)}, KEY, 2))),
    (TypeError, r"q\['u'\] must be .* got a Normal", lambda: (
        rao_blackwellized(constant, CONTINUOUS, KEY, 2, over=["u"]))),
    (ValueError, r"over must name latents of q, got \['z'\]: choose from \['b', 'u'\]", lambda: (
        rao_blackwellized(constant, CONTINUOUS, KEY, 2, over=["z"]))),
    (ValueError, "over must name latents of q, got none", lambda: (
        rao_blackwellized(constant, CONTINUOUS, KEY, 2, over=[]))),
    (ValueError, "q must be a dict to enumerate over", lambda: (
        rao_blackwellized(constant, BERNOULLI, KEY, 2, over=["b"]))),
    (ValueError, "one scalar for one sample", lambda: rebar(lambda z, q: jnp.zeros(2), BERNOULLI, KEY, 2)),
    (ValueError, "logits must have at least one axis, got a scalar", lambda: OneHotCategorical(0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), MISUSES)
def test_misuse_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()
