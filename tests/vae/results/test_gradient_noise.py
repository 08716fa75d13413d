import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from monte_carlo import Z, assert_unbiased, is_biased
from vae_jax import gradient_statistics
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.results.gradient_noise import noise_by_layer, training_loss
from vae_jax.vae.training.objectives import DivergenceWeights

KEY = jax.random.key(0)
SHAPE, SCALE = (2, 3), 0.5
GENERATOR = np.random.default_rng(0)
PIXELS = jnp.asarray(GENERATOR.integers(0, 256, (40, 6), dtype=np.uint8))
X = np.asarray(PIXELS) / 255
WEIGHTS = DivergenceWeights(jnp.float32(1.0), jnp.float32(0.5))
FIELDS = ("signal", "signal_se", "noise", "noise_se", "signal_to_noise", "signal_to_noise_se")


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def vae():
    """The loss of a small VAE on stochastically binarized pixels, and its parameters."""
    experiment = Experiment(
        DataConfig(binarization="stochastic"),
        ModelConfig(latent_size=2, hidden_sizes=(3,)),
        training=TrainingConfig(batch_size=8),
    )
    architecture = Architecture(experiment.model, SHAPE)
    return training_loss(experiment, architecture, PIXELS, WEIGHTS), jax.jit(architecture.init)(jax.random.key(1))


def drawn_gradients(loss, params, keys):
    """The gradient at each key by layer, [R, P] in float64, and all layers together."""
    gradient = jax.jit(jax.grad(loss))
    layers = {}
    for key in keys:
        leaves = jax.tree_util.tree_leaves_with_path(gradient(params, key))
        found = {}
        for path, leaf in leaves:
            name = ".".join(str(part.key) for part in path[:-1])
            found.setdefault(name, []).append(np.ravel(leaf).astype(float))
        found["all"] = [part for parts in found.values() for part in parts]
        for name, parts in found.items():
            layers.setdefault(name, []).append(np.concatenate(parts))
    return {name: np.stack(rows) for name, rows in layers.items()}


def squares_by_hand(groups):
    """Squared signal, squared noise and their ratio from groups of draws [G, R, P], by the definitions."""
    noise = np.mean([((group - group.mean(0)) ** 2).sum() / (len(group) - 1) for group in groups])
    draws = np.concatenate(groups)
    signal = (draws.mean(0) ** 2).sum() - noise / len(draws)
    return np.array([signal, noise, signal / noise])


def by_hand(draws):
    """All fields, the errors from leaving each tenth of the draws out."""
    groups = draws.reshape(10, -1, draws.shape[-1])
    whole = squares_by_hand(groups)
    left_out = [squares_by_hand([group for other, group in enumerate(groups) if other != g]) for g in range(10)]
    centre = sum(left_out) / 10
    errors = np.sqrt(9 / 10 * sum((each - centre) ** 2 for each in left_out))
    resolved = whole[0] > 2 * errors[0]
    found = {"resolved": resolved}
    for name, square, error in zip(("signal", "noise", "signal_to_noise"), whole, errors, strict=True):
        known = resolved or name == "noise"
        found[name] = np.sqrt(square) if known else np.sqrt(max(square, 0) + 2 * error)
        found[f"{name}_se"] = error / 2 / np.sqrt(square) if known else None
    return found


def group_keys(key, num_replicates):
    """Those that the draws of each tenth are made with, in order."""
    return [
        jax.random.fold_in(jax.random.fold_in(key, group), number)
        for group in range(10)
        for number in range(num_replicates // 10)
    ]


def test_the_layers_are_those_of_the_model_and_the_last_row_is_of_them_all(vae):
    loss, params = vae
    found = {layer.layer: layer for layer in noise_by_layer(loss, params, KEY, 20)}
    assert found["encoder.loc_head"].num_parameters == found["encoder.scale_head"].num_parameters == 3 * 2 + 2
    assert found["decoder.head"].num_parameters == 3 * 6 + 6
    *layers, (last, whole) = found.items()
    assert last == "all"
    assert whole.num_parameters == sum(layer.num_parameters for _, layer in layers)
    assert whole.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert whole.noise**2 == pytest.approx(sum(layer.noise**2 for _, layer in layers))


@pytest.mark.slow
def test_the_statistics_of_a_vae_s_loss_are_those_of_its_stacked_gradients(vae):
    loss, params = vae
    keys = [jax.random.fold_in(KEY, number) for number in range(30)]
    draw = jax.jit(jax.value_and_grad(loss))
    draws = [jax.tree.map(np.asarray, draw(params, key)) for key in keys]
    value, gradient = gradient_statistics(loss, params, KEY, 30, tail_size=0)
    losses = np.array([float(loss) for loss, _ in draws])
    assert value.mean == pytest.approx(losses.mean(), rel=1e-5)
    assert value.variance == pytest.approx(losses.var(ddof=1), rel=1e-3)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).astype(float), *(gradient for _, gradient in draws))
    close = partial(chex.assert_trees_all_close, rtol=2e-3, atol=1e-6)
    close(gradient.mean, jax.tree.map(lambda leaf: leaf.mean(0), stacked))
    close(gradient.variance, jax.tree.map(lambda leaf: leaf.var(0, ddof=1), stacked))


SLOPES = {"a": {"kernel": np.float32([0.3, -0.4])}, "b": {"kernel": np.float32([0.0]), "bias": np.float32([0.0])}}
SPREAD = 2.0


def noisy_line(params, key):
    """Its gradient is the slopes plus independent normal noise: |slopes| is 0.5 in layer a and 0 in layer b."""
    leaves, slopes = jax.tree.leaves(params), jax.tree.leaves(SLOPES)
    noise = jax.random.normal(key, (4,))
    split = jnp.split(noise, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return sum((leaf * (slope + SPREAD * e)).sum() for leaf, slope, e in zip(leaves, slopes, split, strict=True))


@pytest.mark.parametrize("name", [pytest.param("vae", marks=pytest.mark.slow), "noisy_line"])
def test_signal_and_noise_by_layer_are_those_of_the_stacked_gradients(name, vae):
    loss, params = vae if name == "vae" else (noisy_line, SLOPES)
    expected = {name: by_hand(draws) for name, draws in drawn_gradients(loss, params, group_keys(KEY, 60)).items()}
    shares = []
    found = noise_by_layer(loss, params, KEY, 60, on_progress=shares.append)
    assert [layer.layer for layer in found] == list(expected)
    assert shares == pytest.approx(np.arange(1, 11) / 10)
    # Of the noisy line's signals there are too few draws, so that either form of an answer is compared.
    assert all(layer.resolved for layer in found) == (name == "vae")
    for layer in found:
        by_definition = expected[layer.layer]
        assert layer.resolved == by_definition["resolved"]
        assert layer.num_replicates == 60
        for field in FIELDS:
            value, other = getattr(layer, field), by_definition[field]
            assert (value is None) == (other is None), field
            assert value is None or value == pytest.approx(other, rel=1e-3), (layer.layer, field)


@pytest.fixture(scope="module")
def repeats():
    """Layer by layer, what 40 independent measurements of the noisy line find: of 100 draws each, and of 1,000."""
    params = jax.tree.map(jnp.ones_like, SLOPES)
    return {
        size: [
            {layer.layer: layer for layer in noise_by_layer(noisy_line, params, jax.random.key(seed), size)}
            for seed in range(40)
        ]
        for size in (100, 1000)
    }


def test_noise_has_its_known_value_and_an_honest_error(repeats):
    for name, num_parameters in (("a", 2), ("b", 2), ("all", 4)):
        noise = np.array([each[name].noise for each in repeats[1000]])
        exact, error = SPREAD * math.sqrt(num_parameters), noise.std(ddof=1) / math.sqrt(40)
        assert_unbiased(noise.mean(), error, exact, resolution=0.1)
        # A sum of squared normals: the variance of its root is spread^2 / (2 R).
        told = np.array([each[name].noise_se for each in repeats[1000]])
        assert np.sqrt((told**2).mean()) == pytest.approx(SPREAD / math.sqrt(2 * 1000), rel=0.35)
        assert is_biased(noise.mean(), error, exact * 1.05)


def test_a_signal_is_found_where_there_is_one(repeats):
    layers = [each["a"] for each in repeats[1000]]
    assert sum(layer.resolved for layer in layers) > 35
    resolved = [layer for layer in layers if layer.resolved]
    z_scores = [(layer.signal - 0.5) / layer.signal_se for layer in resolved]
    assert max(map(abs, z_scores)) < Z
    assert 0.5 < np.std(z_scores) < 2
    for layer in resolved:
        assert layer.signal_to_noise == pytest.approx(layer.signal / layer.noise)


def test_no_signal_is_told_as_at_most(repeats):
    layers = [each["b"] for each in repeats[100]]
    unresolved = [layer for layer in layers if not layer.resolved]
    # The square stands two errors above zero by chance once in twenty or thirty times.
    assert len(unresolved) > 30
    for layer in unresolved:
        assert layer.signal > 0
        assert layer.signal_to_noise > 0
        assert layer.signal_se is layer.signal_to_noise_se is None
    # Squares of a mean of 100 draws are 2 * spread^2 / 100 of noise alone: without that taken off all are resolved.
    assert np.mean([layer.signal for layer in unresolved]) < 3 * SPREAD * math.sqrt(2 / 100)


def test_a_gradient_without_noise_is_known_exactly():
    def loss(params, key):
        return 3 * params["a"]["kernel"][0] + 4 * params["a"]["kernel"][1] + 0 * params["b"]["kernel"].sum()

    a, b, whole = noise_by_layer(loss, {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.ones(3)}}, KEY, 20)
    for layer in (a, whole):
        assert layer.resolved
        assert (layer.signal, layer.signal_se, layer.noise, layer.noise_se) == (5, 0, 0, 0)
        assert (layer.signal_to_noise, layer.signal_to_noise_se) == (math.inf, 0)
    assert b.resolved
    assert (b.signal, b.signal_se, b.noise) == (0, 0, 0)
    assert math.isnan(b.signal_to_noise)


@pytest.mark.parametrize("number", [-10, 0, 10, 15, 1001])
def test_a_number_of_replicates_that_does_not_split_is_refused(number):
    with pytest.raises(ValueError, match=rf"^num_replicates must be a multiple of 10 from 20, got {number}: round it$"):
        noise_by_layer(noisy_line, SLOPES, KEY, number)


DIRECTIONS = np.linalg.qr(GENERATOR.standard_normal((6, 2)))[0].T * np.array([[1.5], [0.4]])
OFFSET = np.full(6, 0.4)
PRECISION = 1 + (DIRECTIONS**2).sum(1) / SCALE**2


def exact_posterior():
    """p(x|z) = Normal(z @ DIRECTIONS + OFFSET, SCALE) with orthogonal directions, and the encoder that is exact."""
    kernel = DIRECTIONS.T / SCALE**2 / PRECISION
    content = {
        "encoder": {
            "loc_head": {"kernel": kernel, "bias": -OFFSET @ kernel},
            "scale_head": {"kernel": np.zeros((6, 2)), "bias": -np.log(PRECISION)},
        },
        "decoder": {"head": {"kernel": DIRECTIONS, "bias": OFFSET}},
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), content)


def log_evidence(decoder, x):
    """log p(x) of a linear Gaussian model (nats)."""
    covariance = decoder["kernel"].T @ decoder["kernel"] + SCALE**2 * jnp.eye(6)
    residual = x - decoder["bias"]
    square = residual @ jnp.linalg.solve(covariance, residual)
    return -(square + jnp.linalg.slogdet(covariance)[1] + 6 * math.log(2 * math.pi)) / 2


def log_evidences(decoder):
    return jax.vmap(partial(log_evidence, decoder))(jnp.asarray(X))


def linear_experiment(batch_size):
    return Experiment(
        DataConfig(binarization="none"),
        ModelConfig(latent_size=2, hidden_sizes=(), likelihood="gaussian", likelihood_scale=SCALE),
        ObjectiveConfig(kl="sampled", estimator="sticking_the_landing"),
        TrainingConfig(batch_size=batch_size),
    )


@pytest.mark.slow
def test_the_signal_of_a_linear_model_at_its_exact_posterior_is_that_of_log_p():
    """Sticking the landing has then no noise in the encoder, and the decoder's mean gradient is that of log p(x)."""
    params, experiment = exact_posterior(), linear_experiment(batch_size=16)
    loss = training_loss(experiment, Architecture(experiment.model, SHAPE), PIXELS, WEIGHTS)
    found = {layer.layer: layer for layer in noise_by_layer(loss, params, KEY, 2000)}
    decoder = {"kernel": jnp.asarray(DIRECTIONS), "bias": jnp.asarray(OFFSET)}
    mean = jax.jit(jax.grad(lambda decoder: log_evidences(decoder).mean()))(decoder)
    exact = math.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in mean.values()))
    head = found["decoder.head"]
    assert head.resolved
    assert_unbiased(head.signal, head.signal_se, exact, resolution=0.25 * exact)
    for name in ("encoder.loc_head", "encoder.scale_head"):
        assert found[name].noise < 1e-3 * head.noise


@pytest.mark.slow
def test_the_loss_is_the_mean_of_random_batches_of_the_weighted_objective():
    """Every sample's ELBO at the exact posterior is log p(x), so that only the choice of the batch is random."""
    params, experiment = exact_posterior(), linear_experiment(batch_size=4)
    decoder = {"kernel": jnp.asarray(DIRECTIONS), "bias": jnp.asarray(OFFSET)}
    log_marginals = np.asarray(jax.jit(log_evidences)(decoder))
    architecture = Architecture(experiment.model, SHAPE)
    loss = training_loss(experiment, architecture, PIXELS, WEIGHTS)
    keys = jax.random.split(KEY, 4000)
    losses = np.asarray(jax.jit(jax.vmap(partial(loss, params)))(keys), float)
    spread = log_marginals.std() / math.sqrt(4)
    assert_unbiased(losses.mean(), spread / math.sqrt(4000), -log_marginals.mean(), resolution=0.5 * spread)
    # With replacement: without it the variance were smaller by (40 - 4) / (40 - 1).
    assert losses.std(ddof=1) == pytest.approx(spread, rel=0.1)

    @jax.jit
    @jax.vmap
    def weighted(beta):
        return training_loss(experiment, architecture, PIXELS, WEIGHTS._replace(beta=beta))(params, KEY)

    three, one, none = np.asarray(weighted(jnp.array([3.0, 1.0, 0.0])), float)
    assert three - none == pytest.approx(3 * (one - none), rel=1e-4)
    assert abs(one - none) > 0.1
