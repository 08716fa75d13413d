"""Gradients of an estimator's own, and second derivatives: right or refused, for every estimator and every bound."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from monte_carlo import assert_unbiased
from vae_jax import OneHotCategorical, bounds, distributions, elbo
from vae_jax.estimators import (
    ESTIMATORS,
    REGISTRY,
    antithetic_pairs,
    in_blocks,
    leave_one_out,
    leave_one_pair_out,
    moving_average_score,
    no_baseline,
    rao_blackwellized,
    score_function,
)
from vae_jax.estimators.baselines import MovingAverage
from vae_jax.estimators.gradient_terms import (
    density_ratio,
    derivative_of,
    gradient_term,
    held_at_first,
    scored,
    slowed_at_first,
    with_first_derivative,
)

NUM_REPLICATES = 20_000


def test_a_density_ratio_is_one_with_derivatives_of_every_order():
    def ratio(x):
        return density_ratio(3.0 * jnp.asarray(x))

    first = jax.grad(ratio)
    assert [float(f(0.7)) for f in (ratio, first, jax.grad(first), jax.grad(jax.grad(first)))] == [1, 3, 9, 27]


def test_a_sample_that_cannot_have_been_drawn_surfaces():
    assert np.isnan(scored(jnp.ones(1), jnp.zeros(1), jnp.array([-jnp.inf])))


def test_what_is_held_at_first_is_live_afterwards():
    def cost(x, y):
        held = held_at_first({"x": x, "n": 2})
        return density_ratio(jnp.asarray(x)) * jnp.sin(held["n"] * held["x"] * y)

    x, y = 0.3, 0.7
    slope = jax.grad(cost)(x, y)
    np.testing.assert_allclose(slope, np.sin(2 * x * y), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(jax.grad(cost))(x, y), np.sin(2 * x * y) + 2 * y * np.cos(2 * x * y), rtol=1e-6)


def test_a_derivative_of_one_array_counts_for_all_of_them():
    def cost(x, y):
        held = held_at_first((x, y))
        return density_ratio(jnp.asarray(x)) * held[1] ** 2

    assert jax.grad(jax.grad(cost), 1)(0.3, 2.0) == 4.0
    assert jax.grad(lambda x, z: held_at_first(x, until=z) * z, 1)(2.0, 3.0) == 2.0
    assert jax.grad(jax.grad(lambda x, z: held_at_first(x, until=z) * z, 1))(2.0, 3.0) == 1.0


def test_a_path_is_slowed_in_the_first_derivative_alone():
    def cost(x):
        (slowed,) = slowed_at_first(jnp.array([0.5]), (x,), ())
        return slowed[0] ** 2

    x = jnp.array([3.0])
    assert cost(x) == 9.0
    assert jax.grad(cost)(x) == 3.0
    assert jax.hessian(cost)(x) == 1.0


def test_a_term_is_zero_and_has_the_derivative_that_it_is_given():
    x, coefficient = jnp.array([0.3, -2.0]), jnp.array([5.0, 7.0])

    def total(x, coefficient):
        return gradient_term(coefficient * x, x).sum() + derivative_of(x).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(x, coefficient)
    assert value == 0
    np.testing.assert_array_equal(gradients[0], coefficient * x + 1)
    np.testing.assert_array_equal(gradients[1], 0)
    np.testing.assert_array_equal(jax.hessian(total)(x, coefficient), jnp.diag(coefficient))


@pytest.mark.parametrize("term", [gradient_term, lambda c, x: with_first_derivative(jnp.zeros(()), [c], [x])])
def test_a_term_is_not_broadcast(term):
    with pytest.raises(AssertionError):
        term(jnp.ones(3), jnp.ones((3, 1)))


def once(x, model):
    """cos(model), with a gradient of 2 in the latents' parameter."""
    return with_first_derivative(jnp.cos(model), [jnp.array([2.0])], [jnp.reshape(x, (1,))])


def in_a_loop(x, model):
    return jax.lax.map(jax.checkpoint(partial(once, x)), jnp.stack([model, model])).mean()


@pytest.mark.parametrize("function", [once, in_a_loop, jax.jit(once)])
def test_first_derivatives_of_every_kind_are_taken(function):
    both = (2.0, -np.sin(0.2))
    np.testing.assert_allclose(jax.grad(function, (0, 1))(0.3, 0.2), both, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(function, (0, 1)))(0.3, 0.2), both, rtol=1e-6)
    np.testing.assert_allclose(jax.linearize(function, 0.3, 0.2)[1](1.0, 1.0), sum(both), rtol=1e-6)
    batch = jax.vmap(jax.grad(function))(jnp.full(2, 0.3), jnp.full(2, 0.2))
    np.testing.assert_allclose(batch, 2)
    np.testing.assert_allclose(jax.grad(jax.grad(function, 1), 1)(0.3, 0.2), -np.cos(0.2), rtol=1e-6)


SECOND = {
    "hessian": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "of the parameter, then of the model": lambda f: jax.grad(jax.grad(f), 1),
    "of the model, then of the parameter": lambda f: jax.grad(jax.grad(f, 1)),
    "compiled": lambda f: jax.jit(jax.hessian(f)),
    "a batch": lambda f: lambda *each: jax.vmap(jax.hessian(f))(*(jnp.full(2, x) for x in each)),
}


@pytest.mark.parametrize("function", [once, in_a_loop, jax.jit(once)])
@pytest.mark.parametrize("transform", SECOND.values(), ids=SECOND)
def test_second_derivatives_of_every_kind_are_refused(function, transform):
    with pytest.raises(TypeError, match="must be differentiated once, got a second derivative"):
        transform(function)(0.3, 0.2)


def continuous(latents, mean, key, estimator):
    """The ELBO of z ~ Normal(mean, 1), x ~ Normal(z, 1), x = 1.5 under q = Normal(loc, scale)."""
    loc, scale = latents

    def log_joint(z):
        return dist.Normal(mean, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.5)

    return elbo(log_joint, dist.Normal(loc, scale), key, 4, estimator=estimator)


AT = jnp.array([0.3, 0.8, 0.1])
HESSIAN = np.array([[-2, 0, 1], [0, -2 - 1 / 0.8**2, 0], [1, 0, -1]])


def discrete(latents, model, key, estimator):
    """The ELBO of two coins and a die under a q with other odds, in a model with one parameter."""
    q = {"coins": dist.Bernoulli(logits=latents[:2]).to_event(1), "die": OneHotCategorical(latents[2:])}

    def log_joint(z):
        heads = z["coins"].astype(float)
        return model * heads.sum() * jnp.sin(heads[0] + jnp.arange(3.0) @ z["die"])

    return elbo(log_joint, q, key, 4, estimator=estimator)


def bernoulli(latents, model, key, estimator):
    """As `discrete`, of the coins alone."""

    def log_joint(z):
        heads = z.astype(float)
        return model * jnp.sin(heads[0] + 2.0 * heads[1])

    return elbo(log_joint, dist.Bernoulli(logits=latents).to_event(1), key, 4, estimator=estimator)


def of_all(loss, estimator):
    """A loss of one vector, the model's parameter last, and of a key."""
    return lambda flat, key: loss(flat[:-1], flat[-1], key, estimator)


def moments(function, at, num_replicates=NUM_REPLICATES):
    """Mean and standard error of a function of parameters and key."""
    draws = jax.jit(jax.vmap(function, in_axes=(None, 0)))(at, jax.random.split(jax.random.key(1), num_replicates))
    draws = np.asarray(draws, float)
    return draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(num_replicates)


def check_hessian(loss, at, exact, resolution):
    mean, error = moments(lambda x, key: jax.hessian(partial(loss, key=key))(x), at)
    assert_unbiased(mean, np.maximum(error, 1e-6 * np.abs(exact).max()), exact, resolution=resolution)


ON_NORMAL = [
    "pathwise", "sticking_the_landing", "closed_form_entropy", "inverse_cdf", "score_function+leave_one_out",
    "score_function+optimal_score", "score_function+delta_method", "pathwise+delta_method",
    "score_function+antithetic_pairs", "pathwise+antithetic_pairs", "score_function+sobol", "pathwise+sobol",
    "measure_valued", "coupled_measure_valued",
]  # fmt: skip
ON_DISCRETE = [
    "score_function", "enumeration", "rao_blackwellized", "rebar", "relax", "straight_through", "gumbel_softmax",
    "categorical_disarm",
]  # fmt: skip
ON_BERNOULLI = ["arm", "disarm"]
QUICK = {"sticking_the_landing", "score_function+leave_one_out", "pathwise+delta_method", "score_function", "relax"}

CASES = [
    pytest.param(
        loss,
        name,
        marks=[] if name in QUICK or not REGISTRY[name].any_order else pytest.mark.slow,
    )
    for loss, names in ((continuous, ON_NORMAL), (discrete, ON_DISCRETE), (bernoulli, ON_BERNOULLI))
    for name in names
]


def test_every_estimator_is_here():
    assert set(ON_NORMAL + ON_DISCRETE + ON_BERNOULLI) == set(ESTIMATORS)


@pytest.mark.parametrize(("loss", "name"), CASES)
def test_the_hessian_of_an_elbo_is_right_or_refused(loss, name):
    of_estimator = of_all(loss, ESTIMATORS[name])
    at = {continuous: AT, discrete: jnp.linspace(-0.4, 0.6, 6), bernoulli: jnp.array([0.4, -0.3, 1.2])}[loss]
    if not REGISTRY[name].any_order:
        key = jax.random.key(0)
        for transform in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f))):
            with pytest.raises(TypeError, match="got a second derivative"):
                jax.eval_shape(transform(partial(of_estimator, key=key)), at)
        model = jax.hessian(lambda model: loss(at[:-1], model, key, ESTIMATORS[name]))(at[-1])
        np.testing.assert_allclose(model, -1 if loss is continuous else 0, atol=1e-5)
        return
    exact = HESSIAN
    if loss is discrete:
        # The relaxation's Hessian is that of another objective.
        if not REGISTRY[name].unbiased:
            return
        exact = jax.hessian(partial(of_all(loss, ESTIMATORS["enumeration"]), key=jax.random.key(0)))(at)
    check_hessian(of_estimator, at, exact, resolution=2.5 if loss is continuous else 0.7)


MIXED = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in ON_NORMAL
    if REGISTRY[name].any_order
]


@pytest.mark.parametrize("name", MIXED)
def test_derivatives_by_one_parameter_after_another_are_right(name):
    pairs = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 1), (2, 2))

    def entries(at, key):
        def loss(*each):
            return continuous(each[:2], each[2], key, ESTIMATORS[name])

        return jnp.stack([jax.grad(jax.grad(loss, first), second)(*at) for first, second in pairs])

    mean, error = moments(entries, AT)
    exact = np.array([HESSIAN[pair] for pair in pairs])
    assert_unbiased(mean, np.maximum(error, 1e-6), exact, resolution=2.5)


STATE = MovingAverage(jnp.float32(-2.0), jnp.float32(1.0))
VARIANTS = {
    "a moving average": lambda *each: moving_average_score(*each, state=STATE)[0],
    "blocks": in_blocks(partial(score_function, baseline=leave_one_out), 2),
    "pairs": antithetic_pairs(partial(score_function, baseline=leave_one_pair_out)),
    "a prediction": partial(score_function, baseline=lambda values: -2.0),
    "no baseline": partial(score_function, baseline=no_baseline),
}


@pytest.mark.slow
@pytest.mark.parametrize("estimator", VARIANTS.values(), ids=VARIANTS)
def test_every_baseline_has_the_right_hessian(estimator):
    check_hessian(of_all(continuous, estimator), AT, HESSIAN, resolution=4)


@pytest.mark.slow
def test_rao_blackwellization_has_the_hessian_of_its_estimator():
    def loss(flat, key):
        q = {"coin": dist.Bernoulli(logits=flat[0]), "z": dist.Normal(flat[1], 1.0)}

        def objective(sample, q):
            return jnp.cos(sample["z"] + sample["coin"]) - distributions.log_prob(q, sample)

        estimator = partial(score_function, baseline=leave_one_out)
        return rao_blackwellized(objective, q, key, 4, over=["coin"], estimator=estimator)

    def exact(flat):
        prob, decay = jax.nn.sigmoid(flat[0]), np.exp(-0.5)
        entropy = jax.nn.softplus(flat[0]) - flat[0] * prob
        return decay * (prob * jnp.cos(flat[1] + 1) + (1 - prob) * jnp.cos(flat[1])) + entropy

    at = jnp.array([0.4, 0.3])
    check_hessian(loss, at, np.asarray(jax.hessian(exact)(at)), resolution=1)


BOUNDS = {
    "doubly_reparameterized": bounds.doubly_reparameterized,
    "vimco": bounds.vimco,
    "multi_sample_score_function": bounds.multi_sample_score_function,
    "renyi, doubly_reparameterized": partial(bounds.renyi, alpha=0.5, gradient=bounds.doubly_reparameterized),
    "chi, doubly_reparameterized": partial(bounds.chi, gradient=bounds.doubly_reparameterized),
}
ALONG_PATHS = {
    "renyi, doubly_reparameterized": partial(bounds.renyi, alpha=0.5),
    "chi, doubly_reparameterized": bounds.chi,
}
"""The same expectations with gradients along the paths, whose Hessians are right."""


def of_bound(flat, key, bound):
    loc, scale, mean = flat

    def log_joint(z):
        return dist.Normal(mean, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.5)

    return bound(log_joint, dist.Normal(loc, scale), key, 2)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "vimco" else pytest.mark.slow) for name in BOUNDS]
)
def test_the_hessian_of_a_bound_is_right(name):
    along_paths = ALONG_PATHS.get(name, bounds.plain)

    def excess(at, key):
        both = (jax.hessian(partial(of_bound, key=key, bound=bound))(at) for bound in (BOUNDS[name], along_paths))
        return next(both) - next(both)

    mean, error = moments(excess, AT, 4 * NUM_REPLICATES)
    assert_unbiased(mean, np.maximum(error, 1e-5), 0, resolution=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["doubly_reparameterized", "vimco", "multi_sample_score_function"])
def test_derivatives_of_a_bound_by_model_and_latents_in_either_order_are_right(name):
    def excess(at, key):
        def mixed(bound, first, second):
            def loss(*each):
                return of_bound(jnp.stack(each), key, bound)

            return jax.grad(jax.grad(loss, first), second)(*at)

        pairs = ((0, 2), (2, 0), (1, 2), (2, 1), (0, 1), (1, 0))
        return jnp.stack([mixed(BOUNDS[name], *pair) - mixed(bounds.plain, *pair) for pair in pairs])

    mean, error = moments(excess, AT, 4 * NUM_REPLICATES)
    assert_unbiased(mean, np.maximum(error, 1e-5), 0, resolution=2)


@pytest.mark.slow
def test_the_wake_phase_s_second_derivative_tends_to_that_of_the_cross_entropy():
    def loss(flat, key):
        def log_joint(z):
            return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(1.5)

        return bounds.wake_inference_loss(log_joint, dist.Normal(*flat), key, 100_000)

    mean, scale = 0.75 - 0.3, 0.8
    square = 0.5 + mean**2
    exact = [[scale**-2, 2 * mean / scale**3], [2 * mean / scale**3, 3 * square / scale**4 - scale**-2]]
    hessian = jax.hessian(partial(loss, key=jax.random.key(0)))(jnp.array([0.3, 0.8]))
    np.testing.assert_allclose(hessian, exact, rtol=0.02)
