"""The presets, what may be changed about them, and how pixels become binary."""

import copy
import dataclasses
import itertools
import math
import re
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monte_carlo import assert_unbiased
from vae_jax.settings import AppliesWith, check_settings_are_used, declarations, rules_of
from vae_jax.vae.config.experiment import Binarization, Experiment, Likelihood, ModelConfig
from vae_jax.vae.config.presets import DEFAULT_PRESET, PRESETS
from vae_jax.vae.config.setting_conflicts import check_binarization
from vae_jax.vae.config.settings_table import settings_table
from vae_jax.vae.data.binarization import batch_pixels, prepared, stochastically_binarized
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.training.experiment_checks import check_experiment
from vae_jax.vae.training.objectives import DivergenceWeights, batch_terms

KEY = jax.random.key(0)
CONVOLUTIONAL = "convolutional-32"
BUILDS = [(name, (28, 28), "float32") for name in PRESETS] + [(name, (8, 8), "bfloat16") for name in PRESETS]
BUILDS += [(CONVOLUTIONAL, (7, 5, 3), precision) for precision in ("float32", "bfloat16")]
COMPUTED = [("gaussian-20-5-gjs", (8, 8), "bfloat16"), (CONVOLUTIONAL, (7, 5, 3), "float32")]


def program_of(name, shape, precision):
    """A preset's parameters, gradient, terms and mean image as a function of a key, compiled."""
    experiment = PRESETS[name]
    objective = replace(experiment.objective, num_samples=min(experiment.objective.num_samples, 3))
    if experiment.model.network == "hierarchical":
        objective = replace(objective, kl="sampled")
    architecture = Architecture(experiment.model, shape, precision)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, np.prod(shape)), dtype=np.uint8))
    prepared_images = jnp.asarray(prepared(np.asarray(images), experiment.data.binarization, 0, stream=0))

    def loss(params):
        x = batch_pixels(prepared_images, experiment.data.binarization, KEY)
        model = architecture.bind(params)
        weights = DivergenceWeights(jnp.ones(()), jnp.full((), 0.5))
        terms = batch_terms(objective, model, x, KEY, image_weights=jnp.ones(3), weights=weights)
        return -terms.objective, (terms, model.likelihood.mean(model.decode(model.sample_prior(KEY))))

    @jax.jit
    def start_and_differentiate(key):
        params = architecture.init(key, jnp.full(images.shape[1], 0.3))
        return params, jax.grad(loss, has_aux=True)(params)

    return start_and_differentiate


@pytest.mark.parametrize(
    ("name", "shape", "precision"),
    [pytest.param(*build, marks=pytest.mark.slow if build[1] == (28, 28) else ()) for build in BUILDS],
)
def test_every_preset_builds_in_float32(name, shape, precision):
    params, (gradient, (terms, mean)) = jax.eval_shape(program_of(name, shape, precision), KEY)
    assert mean.shape == (math.prod(shape),)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, gradient, terms, mean)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "precision"),
    [pytest.param(*build, marks=() if build in COMPUTED else pytest.mark.slow) for build in BUILDS],
)
def test_every_preset_has_finite_terms_and_gradients(name, shape, precision):
    _, (gradient, (terms, _)) = program_of(name, shape, precision)(KEY)
    assert np.isfinite(np.stack(terms)).all()
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()


def dense(*widths):
    """Weights and biases of a stack of layers."""
    return sum((before + 1) * after for before, after in itertools.pairwise(widths))


NUM_PARAMETERS = {
    "bernoulli-256-50": dense(784, 256) + 2 * dense(256, 50) + dense(50, 256, 784),
    "bernoulli-256-50-grey": dense(784, 256) + 2 * dense(256, 50) + dense(50, 256, 784),
    "gaussian-20-5": 2 * dense(784, 20, 20, 5) + dense(5, 20, 20, 784),
    "gaussian-20-5-gjs": 2 * dense(784, 20, 20, 5) + dense(5, 20, 20, 784),
    "binarized-400-200": dense(784, 400, 400) + 2 * dense(400, 200) + dense(200, 400, 400, 784),
    "manifold-2": dense(784, 512, 256) + 2 * dense(256, 2) + dense(2, 256, 512, 784),
    "iwae-1l": dense(784, 200, 200) + 2 * dense(200, 50) + dense(50, 200, 200, 784),
    "iwae-2l": (
        dense(784, 200, 200) + 2 * dense(200, 100) + dense(100, 100, 100) + 2 * dense(100, 50)
        + dense(50, 100, 100) + 2 * dense(100, 100) + dense(100, 200, 200, 784)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_a_preset_has_as_many_parameters_as_its_layers_make(name):
    architecture = Architecture(PRESETS[name].model, (28, 28))
    params = jax.eval_shape(lambda key: architecture.init(key, jnp.full(784, 0.3)), KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == NUM_PARAMETERS[name]


def test_every_preset_passes_its_checks_and_is_frozen():
    for experiment in PRESETS.values():
        check_experiment(experiment, (28, 28))
        for config in (experiment, experiment.data, experiment.model, experiment.objective, experiment.training):
            for field in dataclasses.fields(config):
                with pytest.raises(dataclasses.FrozenInstanceError):
                    setattr(config, field.name, None)


def test_grey_pixels_are_under_a_bernoulli_only_by_name():
    assert DEFAULT_PRESET == "bernoulli-256-50"
    assert PRESETS["bernoulli-256-50"].data.binarization == "stochastic"
    grey = PRESETS["bernoulli-256-50-grey"]
    assert (grey.model.likelihood, grey.data.binarization) == ("grey_bernoulli", "none")


def test_the_importance_weighted_presets_see_all_images_as_the_protocol_does():
    experiment = PRESETS["iwae-1l"]
    steps = 60_000 // experiment.training.batch_size * experiment.training.num_epochs
    assert experiment.data.num_validation == 0
    assert steps == pytest.approx(9.8e6, rel=0.01)


@pytest.mark.parametrize("likelihood", get_args(Likelihood))
@pytest.mark.parametrize("binarization", get_args(Binarization))
def test_likelihoods_take_the_pixels_that_they_are_of(likelihood, binarization):
    is_grey = binarization == "none"
    if likelihood == "categorical" or is_grey == (likelihood != "bernoulli"):
        check_binarization(likelihood, binarization)
    else:
        with pytest.raises(ValueError, match=f"under likelihood {likelihood}, .* got {binarization}: choose"):
            check_binarization(likelihood, binarization)


def with_fields(config, fields):
    """A copy with other values, of wrong types too: the tests' own checks of types would stop them at the start."""
    config = copy.copy(config)
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


def changed(sections):
    """The default experiment with fields changed, by section."""
    experiment = Experiment()
    changes = {
        name: with_fields(getattr(experiment, name), fields)
        for name, fields in sections.items()
        if name != "experiment"
    }
    return with_fields(experiment, changes | sections.get("experiment", {}))


GREY = {"data": {"binarization": "none"}}
HIERARCHICAL = {"model": {"network": "hierarchical"}}
LEAVE_ONE_OUT = "score_function+leave_one_out"

MISUSES = [
    ({"experiment": {"seed": -1}}, "seed must be from 0 to 4,294,967,295, got -1"),
    ({"experiment": {"seed": 2**32}}, "seed must be from 0 to 4,294,967,295, got 4294967296"),
    ({"experiment": {"seed": True}}, "seed must be int, got True"),
    ({"experiment": {"num_seeds": 0}}, "num_seeds must be at least 1, got 0"),
    ({"data": {"binarization": "otsu"}}, "binarization must be none, threshold, stochastic or fixed, got 'otsu'"),
    ({"data": {"binarization": "none"}}, "binarization must be stochastic, fixed or threshold under likelihood"),
    ({"data": {"binarization_seed": -1}}, "binarization_seed must be at least 0, got -1"),
    ({"data": {"num_validation": -1}}, "num_validation must be at least 0, got -1"),
    ({"model": {"likelihood": "gaussian"}}, "binarization must be none under likelihood gaussian"),
    ({"model": {"network": "transformer"}}, "network must be mlp, convolutional or hierarchical, got 'transformer'"),
    ({"model": {"latent_size": 0}}, "latent_size must be at least 1, got 0"),
    ({"model": {"latent_size": 2.5}}, "latent_size must be int, got 2.5"),
    ({"model": {"hidden_sizes": (20, 0)}}, "hidden_sizes must be at least 1, got 0"),
    ({"model": {"hidden_sizes": [20]}}, "hidden_sizes must be tuple[int, ...], got [20]"),
    ({"model": {"top_latent_size": 0}}, "top_latent_size must be at least 1, got 0"),
    ({"model": {"top_hidden_sizes": (-1,)}}, "top_hidden_sizes must be at least 1, got -1"),
    ({"model": {"activation": "swish"}}, "activation must be relu, leaky_relu, tanh, elu, gelu, silu or softplus"),
    (
        GREY | {"model": {"likelihood": "gaussian", "likelihood_scale": 0.0}},
        "likelihood_scale must be finite and above",
    ),
    (
        GREY | {"model": {"likelihood": "gaussian", "likelihood_scale": -1.0}},
        "likelihood_scale must be finite and above",
    ),
    (GREY | {"model": {"likelihood": "gaussian", "output_bias": "data_mean"}}, "output_bias must be initializer under"),
    (
        GREY | {"model": {"likelihood": "categorical", "output_bias": "data_mean"}},
        "output_bias must be initializer under",
    ),
    (
        GREY | {"model": {"likelihood": "continuous_bernoulli", "output_bias": "data_mean"}},
        "output_bias must be initial",
    ),
    (
        {"model": {"network": "convolutional", "output_bias": "data_mean"}},
        "output_bias must be initializer with network",
    ),
    (
        {"model": {"network": "convolutional", "hidden_sizes": ()}},
        "hidden_sizes must hold the channels of at least one",
    ),
    (
        {"objective": {"objective": "vamp"}},
        "objective must be elbo, geometric_js, dual_geometric_js or iwae, got 'vamp'",
    ),
    ({"objective": {"estimator": "arm", "num_samples": 2}}, "estimator arm: q must be "),
    ({"objective": {"objective": "iwae", "iwae_gradient": "vimco"}}, "num_samples must be at least 2 with iwae_grad"),
    ({"objective": {"estimator": "reinforce"}}, "estimator must be one of pathwise, sticking_the_landing, "),
    (
        {"objective": {"estimator": LEAVE_ONE_OUT}},
        f"estimator {LEAVE_ONE_OUT}: leave_one_out needs at least 2 samples, got 1",
    ),
    ({"objective": {"estimator": "sticking_the_landing"}}, "estimator must not be sticking_the_landing where"),
    ({"objective": {"objective": "iwae", "estimator": "score_function"}}, "estimator must be pathwise under objective"),
    ({"objective": {"num_samples": 0}}, "num_samples must be at least 1, got 0"),
    ({"objective": {"beta": -1.0}}, "beta must be finite and at least 0, got -1.0"),
    ({"objective": {"beta": float("nan")}}, "beta must be finite and at least 0, got nan"),
    ({"objective": {"beta_ramp": 0.0}}, "beta_ramp must be in (0, 1], got 0.0"),
    ({"objective": {"beta_ramp": 1.5}}, "beta_ramp must be in (0, 1], got 1.5"),
    ({"objective": {"beta_cycles": 0}}, "beta_cycles must be at least 1, got 0"),
    ({"objective": {"free_bits": -0.1}}, "free_bits must be finite and at least 0, got -0.1"),
    ({"objective": {"free_bits": 0.1, "kl": "sampled"}}, "free_bits must be 0 with kl sampled"),
    ({"objective": {"free_bits": 0.1, "objective": "iwae"}}, "free_bits must be 0 under objective iwae, got 0.1"),
    (
        {"objective": {"free_bits": 0.1, "objective": "geometric_js"}},
        "free_bits must be 0 under objective geometric_js",
    ),
    ({"objective": {"alpha": -0.1}}, "alpha must be in [0, 1], got -0.1"),
    ({"objective": {"alpha_end": 1.1}}, "alpha_end must be in [0, 1], got 1.1"),
    (HIERARCHICAL, "kl must be sampled with network hierarchical"),
    (HIERARCHICAL | {"objective": {"objective": "geometric_js"}}, "objective must be elbo or iwae with network hier"),
    (
        HIERARCHICAL | {"objective": {"objective": "dual_geometric_js"}},
        "objective must be elbo or iwae with network hier",
    ),
    ({"training": {"num_epochs": 0}}, "num_epochs must be at least 1, got 0"),
    ({"training": {"batch_size": 0}}, "batch_size must be at least 1, got 0"),
    ({"training": {"learning_rate": 0.0}}, "learning_rate must be finite and above 0, got 0.0"),
    ({"training": {"learning_rate": float("inf")}}, "learning_rate must be finite and above 0, got inf"),
    ({"training": {"learning_rate": "fast"}}, "learning_rate must be float, got 'fast'"),
    ({"training": {"adam_b1": 1.0}}, "adam_b1 must be in [0, 1), got 1.0"),
    ({"training": {"adam_b2": -0.1}}, "adam_b2 must be in [0, 1), got -0.1"),
    ({"training": {"adam_epsilon": 0.0}}, "adam_epsilon must be finite and above 0, got 0.0"),
    ({"training": {"weight_decay": -0.1}}, "weight_decay must be finite and at least 0, got -0.1"),
    ({"training": {"gradient_clip": 0.0}}, "gradient_clip must be finite and above 0, got 0.0"),
    ({"training": {"patience": 0}}, "patience must be at least 1, got 0"),
    ({"training": {"precision": "float16"}}, "precision must be float32 or bfloat16, got 'float16'"),
]


@pytest.mark.parametrize(("changes", "said"), MISUSES, ids=[said for _, said in MISUSES])
def test_a_misuse_is_told_in_one_line(changes, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)) as caught:
        check_experiment(changed(changes))
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(r": \w+|; ", message), f"no advice: {message}"


@pytest.mark.parametrize(
    ("sizes", "shape", "said"),
    [
        ((32, 64), (784,), "a convolutional network must see images [height, width]"),
        (
            (8, 8, 8),
            (4, 28),
            "hidden_sizes must leave an image that each stride of 2 can halve, got 3 layers for 4 x 28",
        ),
    ],
)
def test_a_convolution_must_fit_the_images(sizes, shape, said):
    experiment = Experiment(model=ModelConfig(network="convolutional", hidden_sizes=sizes))
    check_experiment(experiment)
    with pytest.raises(ValueError, match=re.escape(said)):
        check_experiment(experiment, shape)
    check_experiment(experiment, (8, 8))


def test_what_is_harmless_is_allowed():
    for changes in (
        {"objective": {"objective": "iwae", "iwae_gradient": "doubly_reparameterized"}},
        {"objective": {"kl": "sampled", "estimator": "sticking_the_landing"}},
        {"objective": {"beta": 4, "free_bits": 0.1}},
        {"objective": {"objective": "geometric_js", "alpha_schedule": "trainable"}},
        {"training": {"optimizer": "adamw", "weight_decay": 0.01}},
        {"training": {"optimizer": "adamax", "adam_b1": 0.5}},
        {"data": {"num_validation": 0}},
        HIERARCHICAL | {"objective": {"kl": "sampled"}},
        {"model": {"likelihood": "categorical"}},
    ):
        check_experiment(changed(changes))
        check_settings_are_used(changed(changes))


IWAE = {"objective": "iwae"}
JENSEN_SHANNON = {"objective": "geometric_js"}
USED = [
    ({"data": {"data_dir": "folder"}}, {"data": {"data": "digits"}}),
    ({"data": {"binarization_seed": 1}}, GREY),
    ({"data": {"binarization_seed": 1}}, {"data": {"binarization": "threshold"}}),
    ({"model": {"top_latent_size": 3, "network": "hierarchical"}}, {"model": {"network": "mlp"}}),
    ({"model": {"top_hidden_sizes": (3,), "network": "hierarchical"}}, {"model": {"network": "convolutional"}}),
    ({"model": {"likelihood": "gaussian", "likelihood_scale": 0.1}}, {"model": {"likelihood": "bernoulli"}}),
    ({"objective": {"kl": "sampled"}}, {"objective": IWAE}),
    ({"objective": {"kl": "sampled"}}, {"objective": JENSEN_SHANNON}),
    ({"objective": {"iwae_gradient": "vimco"} | IWAE}, {"objective": {"objective": "elbo"}}),
    ({"objective": {"beta": 2.0}}, {"objective": IWAE}),
    ({"objective": {"beta_schedule": "linear"}}, {"objective": IWAE}),
    ({"objective": {"beta_schedule": "linear", "beta_ramp": 0.2}}, {"objective": {"beta_schedule": "constant"}}),
    ({"objective": {"beta_schedule": "cyclical", "beta_cycles": 2}}, {"objective": {"beta_schedule": "linear"}}),
    ({"objective": {"alpha": 0.3} | JENSEN_SHANNON}, {"objective": {"objective": "elbo"}}),
    ({"objective": {"alpha_schedule": "trainable"} | JENSEN_SHANNON}, {"objective": IWAE}),
    (
        {"objective": {"alpha_schedule": "linear", "alpha_end": 0.7} | JENSEN_SHANNON},
        {"objective": {"alpha_schedule": "trainable"}},
    ),
    ({"objective": {"alpha_convention": "deasy"} | JENSEN_SHANNON}, {"objective": {"objective": "elbo"}}),
    ({"training": {"adam_b1": 0.5}}, {"training": {"optimizer": "sgd"}}),
    ({"training": {"adam_b2": 0.5}}, {"training": {"optimizer": "rmsprop"}}),
    ({"training": {"adam_epsilon": 0.1}}, {"training": {"optimizer": "sgd"}}),
    ({"training": {"optimizer": "adamw", "weight_decay": 0.1}}, {"training": {"optimizer": "adam"}}),
    ({"training": {"patience": 3}}, {"data": {"num_validation": 0}}),
]
"""A setting with what it has an effect with, and a change that leaves it without."""

ALWAYS_USED = {
    "data", "binarization", "num_validation",
    "network", "latent_size", "hidden_sizes", "activation", "encoder", "posterior_scale", "initializer", "output_bias",
    "likelihood", "objective", "estimator", "num_samples", "free_bits",
    "num_epochs", "batch_size", "learning_rate", "learning_rate_schedule", "optimizer", "gradient_clip", "precision",
    "seed", "num_seeds",
}  # fmt: skip
"""Or refused by `check_experiment` where they are not."""


def test_every_setting_has_a_condition_or_always_an_effect():
    conditional = set(rules_of(Experiment, AppliesWith))
    assert conditional | ALWAYS_USED == set(declarations(Experiment))
    assert not conditional & ALWAYS_USED
    tested = {name for fields, _ in USED for section in fields.values() for name in section}
    assert conditional <= tested


def test_every_condition_is_about_a_setting_and_its_values():
    types = {name: declared.type for name, declared in declarations(Experiment).items()}
    for condition in itertools.chain(*rules_of(Experiment, AppliesWith).values()):
        for name, needed in condition.needed.items():
            if isinstance(needed, tuple):
                assert set(needed) < set(get_args(types[name]))
            else:
                assert name in types


def test_every_setting_is_in_the_table_with_its_help():
    header, rule, *rows = settings_table(Experiment).splitlines()
    assert header == "| Setting | Default | Range | Applies with | Help |"
    assert rule == "| --- | --- | --- | --- | --- |"
    assert [row.split("`")[1] for row in rows] == list(declarations(Experiment))
    assert all(re.search(r"\w.* \|$", row.rsplit(" | ", 1)[1]) for row in rows)
    ramp = (
        "| `beta_ramp` | `0.5` | in (0, 1] | objective elbo, geometric_js or dual_geometric_js, and beta_schedule "
        "linear or cyclical | Share of the training, or of a cycle, in which beta grows. |"
    )
    assert ramp in rows
    sizes = "| `hidden_sizes` | `256` | at least 1 |  | Widths of the encoder from the image up; "
    assert any(row.startswith(sizes) for row in rows)
    assert any("KL to" in row and "| closed_form or sampled | objective elbo |" in row for row in rows)
    assert any(r"q(z\|x)" in row for row in rows)


@pytest.mark.parametrize(("fields", "change"), USED, ids=map(str, USED))
def test_a_setting_that_was_given_and_has_no_effect_is_refused(fields, change):
    check_settings_are_used(changed(fields))
    idle = changed({name: fields.get(name, {}) | change.get(name, {}) for name in {*fields, *change}})
    ((other, value),) = ((name, value) for section in change.values() for name, value in section.items())
    message = (
        f"^[a-z_0-9]+ must be left out with {other} {value}, where it has no effect, got .*: leave it out, or choo"
    )
    with pytest.raises(ValueError, match=message):
        check_settings_are_used(idle)
    # What a preset brings along was not given.
    check_settings_are_used(idle, before=changed(fields))


def test_every_preset_uses_what_it_sets():
    for experiment in PRESETS.values():
        check_settings_are_used(experiment)


# Binarization.

LEVELS = np.tile(np.arange(256, dtype=np.uint8), (2000, 1))


def test_stochastic_pixels_are_ones_as_often_as_they_are_grey():
    draws = np.asarray(stochastically_binarized(jnp.asarray(LEVELS), KEY), float)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert not draws[:, 0].any()
    assert draws[:, 255].all()
    expected = np.arange(256) / 255
    error = np.sqrt(expected * (1 - expected) / len(draws))[1:255]
    assert_unbiased(draws.mean(0)[1:255], error, expected[1:255], resolution=0.15)
    assert not np.array_equal(draws, stochastically_binarized(jnp.asarray(LEVELS), jax.random.key(1)))


def test_fixed_pixels_are_drawn_once_and_not_the_same_for_two_sets():
    first, again, other_seed, other_set = (
        prepared(LEVELS, "fixed", seed, stream=stream) for seed, stream in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other_seed).mean() > 0.2
    assert (first != other_set).mean() > 0.2
    assert set(np.unique(first)) == {0, 255}
    assert not first[:, 0].any()
    assert (first[:, 255] == 255).all()
    expected = np.arange(256) / 255
    error = np.sqrt(expected * (1 - expected) / len(first))[1:255]
    assert_unbiased((first / 255).mean(0)[1:255], error, expected[1:255], resolution=0.15)


def test_a_threshold_is_no_draw():
    got = prepared(LEVELS[:1], "threshold", 0, stream=0)
    np.testing.assert_array_equal(got[0], np.where(np.arange(256) >= 128, 255, 0))
    # Its mean is not the grey level's: it must not pass for a binarization by chance.
    assert abs(got[0, 64] / 255 - 64 / 255) > 0.2


@pytest.mark.parametrize("binarization", get_args(Binarization))
def test_the_model_sees_flat_pixels_from_0_to_1(binarization):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    flat = prepared(images, binarization, 0, stream=0)
    assert flat.shape == (3, 20)
    assert flat.dtype == np.uint8
    x = batch_pixels(jnp.asarray(flat), binarization, KEY)
    assert x.dtype == jnp.float32
    assert x.min() >= 0
    assert x.max() <= 1
    if binarization == "none":
        np.testing.assert_allclose(x, images.reshape(3, 20) / 255, rtol=1e-6)
    else:
        assert set(np.unique(x)) <= {0.0, 1.0}
