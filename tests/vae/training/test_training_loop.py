import math
from dataclasses import replace
from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import expit

from vae_jax import distributions
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.data.binarization import stochastically_binarized
from vae_jax.vae.training import training_loop
from vae_jax.vae.training.many_seeds import place_by_seed, seed_keys, seed_mesh
from vae_jax.vae.training.optimizers import make_optimizer
from vae_jax.vae.training.training_loop import abstract_state, init_state, make_train, run_keys

SHAPE, BATCH = (3, 4), 128
GENERATOR = np.random.default_rng(0)
# Two kinds of images, so that there is something to learn.
KINDS = GENERATOR.integers(0, 2, (257, 1)) * np.where(np.arange(12) < 6, 180, -180) + np.where(
    np.arange(12) < 6, 20, 200
)
IMAGES = (KINDS + GENERATOR.integers(0, 56, (257, 12))).astype(np.uint8)
TINY = ModelConfig(latent_size=2, hidden_sizes=(5,), initializer="uniform_fan_in")
EXPERIMENT = Experiment(model=TINY, training=TrainingConfig(num_epochs=4, batch_size=BATCH, learning_rate=0.01))
GREY = replace(EXPERIMENT, data=DataConfig(binarization="none"), model=replace(TINY, likelihood="gaussian"))
STEPS = 3


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@lru_cache
def trainer(experiment):
    return make_train(experiment, IMAGES, SHAPE)


def start(experiment, seed=0):
    key = seed_keys(jax.random.key(seed), experiment.num_seeds)
    return key, init_state(experiment, IMAGES, SHAPE, key)


def trained(experiment, *calls, seed=0, train=None):
    """The state after so many steps in each call."""
    key, state = start(experiment, seed)
    for num_steps in calls:
        state = (train or trainer(experiment))(key, state, num_steps)
    return state


def assert_different(*trees):
    assert (
        len({b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)) for tree in trees})
        == len(trees)
        > 1
    )


def in_numpy(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


@jax.jit
def by_hand_loss(params, x, noise):
    """Minus the mean ELBO of a batch, its reconstruction and its KL, from the formulas alone."""
    hidden = jnp.maximum(layer(params["encoder"]["trunk"]["layers"][0], x), 0)
    loc = layer(params["encoder"]["loc_head"], hidden)
    log_variance = layer(params["encoder"]["scale_head"], hidden)
    z = loc + jnp.exp(log_variance / 2) * noise
    hidden = jnp.maximum(layer(params["decoder"]["trunk"]["layers"][0], z), 0)
    logits = layer(params["decoder"]["head"], hidden)
    reconstruction = (x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)).sum(1)
    kl = (loc**2 + jnp.exp(log_variance) - 1 - log_variance).sum(1) / 2
    return -(reconstruction - kl).mean(), (reconstruction, kl)


def layer(params, x):
    return x @ params["kernel"] + params["bias"][None]


@jax.jit
def noise_of_batch(key):
    """The noise that the samples of a full batch are made of."""
    noise = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    return jax.vmap(lambda key: distributions.rsample(noise, key, 1)[0])(jax.random.split(key, BATCH))


def test_two_epochs_are_those_of_a_plain_loop_over_unpadded_batches():
    key, state = start(EXPERIMENT)
    keys, params = run_keys(key), in_numpy(state.learned.model)
    first, second = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    total = np.zeros(4)
    for step in range(2 * STEPS):
        epoch, batch = divmod(step, STEPS)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(keys.order, epoch), len(IMAGES)))
        places = order[batch * BATCH : (batch + 1) * BATCH]
        assert len(places) == (1 if batch == 2 else BATCH)
        binarization_key, sample_key = jax.random.split(jax.random.fold_in(keys.noise, step))
        # The draws of a full batch, of which the last has one image only.
        full = np.resize(IMAGES[places], (BATCH, IMAGES.shape[1]))
        x = stochastically_binarized(jnp.asarray(full), binarization_key)[: len(places)]
        noise = noise_of_batch(sample_key)[: len(places)]
        (_, terms), gradient = jax.value_and_grad(by_hand_loss, has_aux=True)(params, x, noise)
        reconstruction, kl = (np.asarray(term, float) for term in terms)
        elbo = reconstruction - kl
        sums = np.array([elbo.sum(), elbo.sum(), reconstruction.sum(), kl.sum()])
        total = sums + (total if batch else 0)
        first = jax.tree.map(lambda moment, g: 0.9 * moment + 0.1 * np.asarray(g), first, gradient)
        second = jax.tree.map(lambda moment, g: 0.999 * moment + 0.001 * np.asarray(g) ** 2, second, gradient)
        # Bias corrections of Adam.
        one, two = 1 - 0.9 ** (step + 1), 1 - 0.999 ** (step + 1)
        params = jax.tree.map(
            lambda p, m, v, one=one, two=two: p - 0.01 * (m / one) / (np.sqrt(v / two) + 1e-8), params, first, second
        )
        state = trainer(EXPERIMENT)(key, state, 1)
        assert int(state.step) == step + 1
        np.testing.assert_allclose(np.stack(state.sums), total, rtol=2e-5)
        chex.assert_trees_all_close(state.learned.model, params, rtol=1e-3, atol=2e-5)
    assert int(state.failure.step) == -1


def test_how_steps_are_grouped_into_calls_changes_no_bit():
    chex.assert_trees_all_equal(trained(EXPERIMENT, 3, 3), trained(EXPERIMENT, 1, 1, 1, 2, 1))


@pytest.fixture
def traced_once(monkeypatch):
    """Steps that fail where they are traced a second time."""
    chex.clear_trace_counter()
    make_step = training_loop._make_step
    monkeypatch.setattr(training_loop, "_make_step", lambda *given: chex.assert_max_traces(make_step(*given), n=1))


@pytest.mark.usefixtures("traced_once")
def test_any_number_of_steps_is_one_program_and_the_same_key_the_same_run():
    train = make_train(EXPERIMENT, IMAGES, SHAPE)
    key, state = start(EXPERIMENT)
    state = train(key, train(key, train(key, state, 1), 2), 3)
    chex.assert_trees_all_equal(state, trained(EXPERIMENT, 1, 2, 3))
    assert_different(state.learned, trained(EXPERIMENT, 3, 3, seed=1).learned)


def test_a_state_that_is_handed_in_is_used_up():
    key, state = start(EXPERIMENT)
    trainer(EXPERIMENT)(key, state, 1)
    donated = [leaf.is_deleted() for leaf in jax.tree.leaves(state)]
    assert all(donated)


IDLE = replace(GREY, training=replace(GREY.training, optimizer="sgd", learning_rate=0.0))


def kl_of_images(experiment):
    """KL of each image under the initial model, which no noise moves where pixels are not binarized."""
    _, state = start(experiment)
    _, (_, kl) = by_hand_loss(state.learned.model, IMAGES.astype(np.float32) / 255, np.zeros((257, 2), np.float32))
    return np.asarray(kl, float)


def test_every_epoch_sees_every_image_once_in_an_order_of_its_own():
    kl = kl_of_images(IDLE)
    key, state = start(IDLE)
    firsts, reconstructions = [], []
    for _ in range(3):
        state = trainer(IDLE)(key, state, 1)
        firsts.append(float(state.sums.kl))
        state = trainer(IDLE)(key, state, 2)
        # Two images have the same KL only to about 1e-5: one twice and another never would be seen.
        np.testing.assert_allclose(float(state.sums.kl), kl.sum(), rtol=1e-6)
        reconstructions.append(float(state.sums.reconstruction))
    assert len(set(firsts)) == 3
    assert len(set(reconstructions)) == 3


@pytest.mark.slow
def test_a_batch_larger_than_the_data_set_holds_every_image_once():
    whole = replace(IDLE, training=replace(IDLE.training, batch_size=300))
    assert whole.training.steps_per_epoch(257) == 1
    state = trained(whole, 1)
    np.testing.assert_allclose(float(state.sums.kl), kl_of_images(whole).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"), [(257, 128, 3), (256, 128, 2), (1, 128, 1), (128, 1, 128)]
)
def test_the_last_images_make_a_batch_of_their_own(num_images, batch_size, expected):
    assert TrainingConfig(batch_size=batch_size).steps_per_epoch(num_images) == expected


def of_seed(tree, seed):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[seed], tree)


@pytest.mark.slow
@pytest.mark.parametrize(("num_seeds", "num_devices"), [(4, 4), pytest.param(3, 1, marks=pytest.mark.slow)])
def test_seeds_trained_at_once_are_runs_of_their_own_on_any_number_of_devices(num_seeds, num_devices):
    many, mesh = replace(EXPERIMENT, num_seeds=num_seeds), seed_mesh(num_seeds)
    assert mesh.size == num_devices
    keys, state = place_by_seed(start(many), mesh)
    train = make_train(many, IMAGES, SHAPE, mesh=mesh)
    for _ in range(2):
        state = train(keys, state, STEPS)
    assert len(state.step.sharding.device_set) == num_devices
    assert state.step.tolist() == [2 * STEPS] * num_seeds
    for seed in range(num_seeds):
        key = seed_keys(jax.random.key(0), num_seeds)[seed]
        alone = init_state(EXPERIMENT, IMAGES, SHAPE, key)
        for _ in range(2):
            alone = trainer(EXPERIMENT)(key, alone, STEPS)
        chex.assert_trees_all_close(of_seed(state, seed), alone, rtol=1e-4, atol=1e-5)
    assert_different(*(of_seed(state.learned, seed) for seed in range(num_seeds)))


def test_one_seed_is_the_first_of_several():
    many = seed_keys(jax.random.key(3), 4)
    one = seed_keys(jax.random.key(3), 1)
    chex.assert_trees_all_equal(jax.random.key_data(one), jax.random.key_data(many[0]))
    assert_different(*jax.random.key_data(many))


def test_the_keys_of_a_run_differ():
    keys = run_keys(jax.random.key(0))
    assert_different(*map(jax.random.key_data, keys))


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_the_abstract_state_is_that_of_the_run(num_seeds):
    experiment = replace(EXPERIMENT, num_seeds=num_seeds)
    found = abstract_state(experiment, len(IMAGES), SHAPE)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, start(experiment)[1])


def elbos(experiment):
    """The ELBO of each of three epochs (nats per image), and the state after them."""
    key, state = start(experiment)
    found = []
    for _ in range(3):
        state = trainer(experiment)(key, state, STEPS)
        found.append(float(state.sums.elbo) / len(IMAGES))
    return found, state


SETTINGS = (
    {"optimizer": "adam"}, {"optimizer": "adamw", "weight_decay": 0.01}, {"optimizer": "adamw", "weight_decay": 0.3},
    {"optimizer": "adamax"}, {"optimizer": "rmsprop"}, {"optimizer": "sgd"}, {"adam_b1": 0.5}, {"adam_b2": 0.5},
    {"adam_epsilon": 0.1}, {"gradient_clip": 0.5, "optimizer": "sgd"},
)  # fmt: skip


def test_every_optimizer_descends_and_takes_its_own_settings():
    ends = []
    for setting in SETTINGS:
        optimizer = make_optimizer(replace(EXPERIMENT.training, **setting), STEPS)

        def step(_, now, optimizer=optimizer):
            point, state = now
            updates, state = optimizer.update(2 * point, state, point)
            return point + updates, state

        def end(point, optimizer=optimizer, step=step):
            return jax.lax.fori_loop(0, 30, step, (point, optimizer.init(point)))[0]

        point = np.asarray(jax.jit(end)(jnp.array([3.0, -0.3])))
        assert float(point @ point) < 9
        ends.append(point)
    assert_different(*ends)


def test_training_is_by_the_configured_optimizer_with_its_gradient_clipped():
    training = replace(EXPERIMENT.training, optimizer="sgd", learning_rate=1.0, gradient_clip=1e-3)
    clipped = replace(EXPERIMENT, training=training)
    before = in_numpy(start(clipped)[1].learned.model)
    after = trained(clipped, 1).learned.model
    squares = jax.tree.map(lambda p, q: float(((p - np.asarray(q)) ** 2).sum()), before, after)
    assert math.sqrt(sum(jax.tree.leaves(squares))) == pytest.approx(1e-3, rel=1e-3)


def test_training_raises_the_elbo():
    found, _ = elbos(EXPERIMENT)
    assert found[2] > found[1] > found[0]


def test_bfloat16_products_train_float32_parameters():
    half = replace(EXPERIMENT, training=replace(EXPERIMENT.training, precision="bfloat16"))
    found, state = elbos(half)
    exact, _ = elbos(EXPERIMENT)
    assert found[2] > found[0]
    assert found != exact
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.learned)} == {np.dtype(np.float32)}


def test_a_trainable_skew_moves_and_a_fixed_one_is_no_parameter():
    objective = ObjectiveConfig(objective="geometric_js", alpha=0.3, alpha_schedule="trainable")
    skewed = replace(GREY, objective=objective)
    assert expit(float(start(skewed)[1].learned.alpha_logit)) == pytest.approx(0.3)
    assert abs(expit(float(trained(skewed, 3).learned.alpha_logit)) - 0.3) > 1e-3
    fixed = replace(GREY, objective=replace(objective, alpha_schedule="fixed"))
    assert abstract_state(fixed, len(IMAGES), SHAPE).learned.alpha_logit is None


def test_a_schedule_counts_the_steps_of_the_whole_training():
    objective = ObjectiveConfig(beta=2.0, beta_schedule="linear", beta_ramp=1.0)
    linear = replace(IDLE, objective=objective)
    key, state = start(linear)
    before = np.zeros(4)
    for step in range(STEPS):
        state = trainer(linear)(key, state, 1)
        sums = np.stack(state.sums)
        objective, _, reconstruction, kl = sums - before
        assert objective == pytest.approx(reconstruction - 2 * step / (4 * STEPS) * kl, rel=1e-5)
        before = sums


def test_the_first_step_that_is_not_finite_is_noted_with_its_terms():
    key, state = start(EXPERIMENT)
    state = trainer(EXPERIMENT)(key, state, 1)
    assert int(state.failure.step) == -1
    state.learned.model["decoder"]["head"]["bias"] = jnp.full(12, jnp.inf)
    for num_steps in (2, 3):
        state = trainer(EXPERIMENT)(key, state, num_steps)
    assert int(state.failure.step) == 1
    assert not all(math.isfinite(float(term)) for term in state.failure.terms)
