"""Every estimator on the Poisson-Gamma problem and on a linear-Gaussian one, with negative controls."""

import inspect
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from gradient_moments import gradient_moments
from monte_carlo import USUAL, assert_unbiased, is_biased
from vae_jax import distributions, elbo, gradient_statistics, leave_one_out, pathwise, score_function
from vae_jax.estimators import ESTIMATORS, in_blocks
from vae_jax.problems import PoissonGamma
from vae_jax.typing import Estimator

NAMES = USUAL
SETTINGS = [
    (2, "normal"),
    (2, "log_normal"),
    (20, "normal"),
    *(
        pytest.param(*setting, marks=pytest.mark.slow)
        for setting in [(3, "normal"), (3, "log_normal"), (20, "log_normal")]
    ),
]


@pytest.mark.parametrize(("num_samples", "family"), SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_mean_and_variance_are_the_exact_ones(name, num_samples, family):
    problem = PoissonGamma(family=family)
    params = problem.default_params
    exact = problem.exact(params, name)(num_samples)
    loss = partial(problem.estimate, num_samples=num_samples, estimator=ESTIMATORS[name])
    num_replicates = 400_000 // num_samples
    value, gradient = gradient_moments(loss, jax.tree.map(np.float32, params), jax.random.key(0), num_replicates)
    means, stds = ({"elbo": getattr(value, field)} | getattr(gradient, field) for field in ("mean", "std"))
    for parameter, moments in exact.items():
        if moments.mean.status != "finite":
            continue
        std = moments.std.value
        assert_unbiased(means[parameter], std / np.sqrt(num_replicates), moments.mean.value, resolution=0.2 * std)
        # Where the tails are so heavy that a standard deviation cannot be measured, the mean alone is checked.
        std_error = moments.std_se(num_replicates)
        if std_error < 0.02 * std:
            assert_unbiased(stds[parameter], std_error, std, resolution=0.3 * std)


def linear_gaussian(model_loc, x=1.5):
    """log p(x, z) for z ~ N(model_loc, 1), x ~ N(z, 1)."""
    return lambda z: dist.Normal(model_loc, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x)


def linear_gaussian_elbo(params, x=1.5):
    """E_q[log p] + entropy for q = N(loc, scale^2)."""
    expected_squares = (params["loc"] - params["model_loc"]) ** 2 + (x - params["loc"]) ** 2 + 2 * params["scale"] ** 2
    return -0.5 * expected_squares - 0.5 * jnp.log(2 * jnp.pi) + jnp.log(params["scale"]) + 0.5


PARAMS = {"model_loc": jnp.float32(0.3), "loc": jnp.float32(0.5), "scale": jnp.float32(0.8)}
exactly = jax.jit(jax.value_and_grad(linear_gaussian_elbo))


def linear_gaussian_loss(params, key, estimator, num_samples=4, **closed_form):
    q = dist.Normal(params["loc"], params["scale"])
    return elbo(linear_gaussian(params["model_loc"]), q, key, num_samples, estimator=estimator, **closed_form)


@pytest.mark.parametrize("closed_form", [{}, {"closed_form": distributions.entropy}], ids=["sampled", "closed_form"])
@pytest.mark.parametrize("name", NAMES)
def test_model_and_inference_gradients_are_right(name, closed_form):
    loss = partial(linear_gaussian_loss, estimator=ESTIMATORS[name], **closed_form)
    exact_value, exact_gradient = exactly(PARAMS)
    value, gradient = gradient_moments(loss, PARAMS, jax.random.key(1), 200_000)
    assert_unbiased(value.mean, value.mean_se, exact_value, resolution=0.05)
    for parameter in PARAMS:
        assert_unbiased(
            gradient.mean[parameter], gradient.mean_se[parameter], exact_gradient[parameter], resolution=0.2
        )


@pytest.mark.parametrize("num_samples", [2, 3])
def test_leave_one_out_is_unbiased_with_few_samples(num_samples):
    loss = partial(linear_gaussian_loss, estimator=ESTIMATORS["score_function+leave_one_out"], num_samples=num_samples)
    gradient = gradient_moments(loss, PARAMS, jax.random.key(2), 200_000).gradient
    _, exact = exactly(PARAMS)
    assert_unbiased(gradient.mean["loc"], gradient.mean_se["loc"], exact["loc"], resolution=0.1)


def test_a_given_baseline_lowers_the_variance_and_leaves_the_mean():
    exact_value, exact = exactly(PARAMS)
    given = partial(score_function, baseline=lambda values: exact_value)
    plain, based = (
        gradient_moments(partial(linear_gaussian_loss, estimator=e), PARAMS, jax.random.key(3), 100_000).gradient
        for e in (score_function, given)
    )
    assert_unbiased(based.mean["loc"], based.mean_se["loc"], exact["loc"], resolution=0.1)
    assert based.variance["loc"] < plain.variance["loc"] / 2


def own_mean_baseline(objective, q, key, num_samples):
    return score_function(objective, q, key, num_samples, baseline=lambda values: values.mean())


def no_score_term(objective, q, key, num_samples):
    samples = distributions.sample(q, key, num_samples)
    return jax.vmap(objective, in_axes=(0, None))(samples, q).mean()


def divided_twice(objective, q, key, num_samples):
    return pathwise(objective, q, key, num_samples) / num_samples


@pytest.mark.parametrize("wrong", [own_mean_baseline, no_score_term, divided_twice])
def test_negative_controls_are_caught(wrong):
    _, exact = exactly(PARAMS)
    gradient = gradient_moments(
        partial(linear_gaussian_loss, estimator=wrong), PARAMS, jax.random.key(4), 200_000
    ).gradient
    assert is_biased(gradient.mean["loc"], gradient.mean_se["loc"], exact["loc"])


@pytest.mark.parametrize(
    ("name", "caught"), [("pathwise", False), ("sticking_the_landing", True), ("score_function", True)]
)
def test_a_closed_form_inside_the_objective_loses_its_gradient(name, caught):
    def loss(params, key):
        q = dist.Normal(params["loc"], params["scale"])
        log_joint = linear_gaussian(params["model_loc"])
        return ESTIMATORS[name](lambda z, q: log_joint(z) + distributions.entropy(q), q, key, 4)

    _, exact = exactly(PARAMS)
    gradient = gradient_moments(loss, PARAMS, jax.random.key(5), 200_000).gradient
    assert is_biased(gradient.mean["scale"], gradient.mean_se["scale"], exact["scale"]) == caught


def test_sticking_the_landing_vanishes_at_the_posterior():
    posterior = PARAMS | {"loc": (PARAMS["model_loc"] + 1.5) / 2, "scale": jnp.sqrt(0.5)}
    gradient_of = jax.jit(jax.grad(linear_gaussian_loss), static_argnums=2)
    gradient = gradient_of(posterior, jax.random.key(6), ESTIMATORS["sticking_the_landing"])
    assert abs(gradient["loc"]) < 1e-5
    assert abs(gradient["scale"]) < 1e-5
    assert abs(gradient_of(posterior, jax.random.key(6), pathwise)["loc"]) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_values_agree_across_estimators(name):
    value_of = jax.jit(linear_gaussian_loss, static_argnums=2)
    value = value_of(PARAMS, jax.random.key(7), ESTIMATORS[name])
    assert value == pytest.approx(float(value_of(PARAMS, jax.random.key(7), pathwise)), rel=1e-6)


def uncompiled(function):
    """As it is: one operation after another is then compiled by itself, which is slow."""
    return function


TRANSFORMED = [
    ("pathwise", jax.jit),
    ("score_function+leave_one_out", jax.jit),
    *(pytest.param(name, uncompiled, marks=pytest.mark.slow) for name in NAMES),
]


@pytest.mark.parametrize(("name", "compiled"), TRANSFORMED)
def test_pytrees_vectors_transformations_and_dtypes(name, compiled):
    x = jnp.arange(3.0)

    def loss(params, key):
        q = {"w": dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1), "s": dist.LogNormal(0.0, 0.1)}

        def log_joint(z):
            return dist.Normal(0.0, 1.0).expand([3]).to_event(1).log_prob(z["w"]) - z["s"] * ((x - z["w"]) ** 2).sum()

        return elbo(log_joint, q, key, 5, estimator=ESTIMATORS[name])

    params = {"loc": np.ones(3, np.float32), "log_scale": np.zeros(3, np.float32)}
    keys = jax.random.split(jax.random.key(8), 3)
    with jax.numpy_rank_promotion("allow"):
        draw = jax.value_and_grad(loss)
        alone = [compiled(draw)(params, key) for key in keys]
        batch = jax.jit(jax.vmap(draw, in_axes=(None, 0)))(params, keys)
        scanned = jax.lax.scan(lambda c, key: (c, draw(params, key)), None, keys)[1]
        with jax.enable_x64(True):
            double = jax.eval_shape(loss, jax.tree.map(lambda p: p.astype("float64"), params), keys[0])
    for number, one in enumerate(alone):
        for together in (batch, scanned):
            chex.assert_trees_all_close(
                one, jax.tree.map(lambda leaf, n=number: leaf[n], together), rtol=2e-4, atol=1e-5
            )
    assert double.dtype == jnp.float64
    assert alone[0][0].dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_the_protocol_s(name):
    expected = list(inspect.signature(Estimator.__call__).parameters)[1:]
    positional = [
        parameter.name
        for parameter in inspect.signature(ESTIMATORS[name]).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    assert positional == expected


INVALID = [
    (dist.Normal, 0.0),
    (dist.LogNormal, 0.0),
    (distributions.PositiveNormal, 0.0),
    (distributions.PositiveNormal, -0.5),
]


def loss_of_scale(scale, key, family, estimator):
    return elbo(linear_gaussian(0.3), family(1.0, scale), key, 4, estimator=estimator)


@pytest.mark.parametrize("name", NAMES)
def test_an_invalid_scale_surfaces(name):
    families, scales = zip(*INVALID, strict=True)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, 0))
    def draw(scales, key):
        return [
            jax.value_and_grad(loss_of_scale)(scale, key, family, ESTIMATORS[name])
            for family, scale in zip(families, scales, strict=True)
        ]

    values_and_gradients = np.asarray(draw(list(scales), jax.random.split(jax.random.key(9), 20)))
    assert values_and_gradients.shape == (len(INVALID), 2, 20)
    assert not np.isfinite(values_and_gradients).any()


@pytest.mark.parametrize("name", ["pathwise", pytest.param("score_function", marks=pytest.mark.slow)])
def test_what_an_invalid_scale_gives_is_counted(name):
    loss = partial(loss_of_scale, family=dist.Normal, estimator=ESTIMATORS[name])
    value, gradient = gradient_statistics(loss, jnp.float32(0.0), jax.random.key(9), 20)
    assert value.num_nonfinite == 20
    assert gradient.num_nonfinite == 20
    assert np.isnan(value.variance)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_average_the_estimator(name):
    blocked = in_blocks(ESTIMATORS[name], 4)
    key = jax.random.key(10)
    draw = jax.value_and_grad(linear_gaussian_loss)

    @jax.jit
    def both(key):
        parts = jax.vmap(lambda block_key: draw(PARAMS, block_key, ESTIMATORS[name], 4))(jax.random.split(key, 3))
        few = [linear_gaussian_loss(PARAMS, key, estimator, 3) for estimator in (blocked, ESTIMATORS[name])]
        return draw(PARAMS, key, blocked, 12), parts, few

    whole, parts, few = both(key)
    mean = jax.tree.map(lambda leaf: np.mean(leaf, axis=0), parts)
    chex.assert_trees_all_close(whole, mean, rtol=1e-5, atol=1e-6)
    assert few[0] == few[1]


def objective_of_shape_two(z, q):
    return jnp.stack([z, z])


NORMAL = dist.Normal(0.0, 1.0)
MISUSES = [
    (ValueError, "num_samples must be at least 1", lambda key: pathwise(lambda z, q: z, NORMAL, key, 0)),
    (ValueError, "leave_one_out needs at least 2 samples, got 1", lambda key: score_function(
        lambda z, q: z, NORMAL, key, 1, baseline=leave_one_out)),
    (ValueError, r"one scalar for one sample, got .* of shapes \[\(2,\)\]", lambda key: pathwise(
        objective_of_shape_two, NORMAL, key, 3)),
    (ValueError, "one scalar for one sample, got tuple", lambda key: pathwise(
        lambda z, q: (z, z), NORMAL, key, 3)),
    (ValueError, "one scalar for one sample, got tuple", lambda key: pathwise(
        lambda z, q: (z, z), NORMAL, key, 1)),
    (ValueError, r"one scalar for one sample, got .* of shapes \[\(2,\)\]", lambda key: pathwise(
        objective_of_shape_two, NORMAL, key, 1)),
    (ValueError, r"baseline must return a scalar or shape \(3,\), got shape \(3, 1\)", lambda key: score_function(
        lambda z, q: z, NORMAL, key, 3, baseline=lambda values: values[:, None])),
    (TypeError, r"q is a Poisson, .* use score_function", lambda key: pathwise(
        lambda z, q: z, dist.Poisson(2.0), key, 3)),
    (ValueError, r"q must have an empty batch shape, got \(2,\)", lambda key: score_function(
        lambda z, q: z, dist.Normal(jnp.zeros(2), 1.0), key, 3)),
    (ValueError, "block_size must be at least 1, got 0", lambda key: in_blocks(pathwise, 0)),
    (ValueError, "num_samples must be a multiple of block_size 4, got 6", lambda key: in_blocks(pathwise, 4)(
        lambda z, q: z, NORMAL, key, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), MISUSES)
def test_misuse_is_refused(error, message, call):
    with pytest.raises(error, match=message):
        call(jax.random.key(0))
