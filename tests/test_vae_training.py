import logging
import math
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from vae_jax.vae.binarization import stochastically_binarized
from vae_jax.vae.config import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.seeds import place_by_seed, seed_keys, seed_mesh
from vae_jax.vae.training import abstract_state, init_state, make_train, num_batches, run_keys

SHAPE, BATCH = (3, 4), 128
GENERATOR = np.random.default_rng(0)
# Two kinds of images, so that there is something to learn.
KINDS = GENERATOR.integers(0, 2, (257, 1)) * np.where(np.arange(12) < 6, 180, -180) + np.where(np.arange(12) < 6, 20, 200)
IMAGES = (KINDS + GENERATOR.integers(0, 56, (257, 12))).astype(np.uint8)
TINY = ModelConfig(latent_size=2, hidden_sizes=(5,))
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


def assert_same_bits(first, second):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def in_numpy(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)


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


def test_two_epochs_are_those_of_a_plain_loop_over_unpadded_batches():
    key, state = start(EXPERIMENT)
    keys, params = run_keys(key), in_numpy(state.learned.model)
    first, second = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for step in range(2 * STEPS):
        epoch, batch = divmod(step, STEPS)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(keys.order, epoch), len(IMAGES)))
        places = order[batch * BATCH : (batch + 1) * BATCH]
        assert len(places) == (1 if batch == 2 else BATCH)
        binarization_key, sample_key = jax.random.split(jax.random.fold_in(keys.noise, step))
        # The draws of a full batch, of which the last has one image only.
        full = np.resize(IMAGES[places], (BATCH, IMAGES.shape[1]))
        x = stochastically_binarized(jnp.asarray(full), binarization_key)[: len(places)]
        noise = jax.vmap(lambda key: jax.random.normal(key, (1, 2))[0])(jax.random.split(sample_key, BATCH))
        (_, terms), gradient = jax.value_and_grad(by_hand_loss, has_aux=True)(params, x, noise[: len(places)])
        reconstruction, kl = (np.asarray(term, float) for term in terms)
        elbo = reconstruction - kl
        sums = np.array([elbo.sum(), elbo.sum(), reconstruction.sum(), kl.sum()])
        total = sums if batch == 0 else total + sums
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
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-3, atol=2e-5), state.learned.model, params)
    assert int(state.failure.step) == -1


def test_how_steps_are_grouped_into_calls_changes_no_bit():
    assert_same_bits(trained(EXPERIMENT, 3, 3), trained(EXPERIMENT, 1, 1, 1, 2, 1))


def test_the_same_key_gives_the_same_run_and_another_another():
    again = trained(EXPERIMENT, 3, train=make_train(EXPERIMENT, IMAGES, SHAPE))
    assert_same_bits(trained(EXPERIMENT, 3), again)
    other = trained(EXPERIMENT, 3, seed=1)
    assert not np.array_equal(again.learned.model["decoder"]["head"]["kernel"], other.learned.model["decoder"]["head"]["kernel"])


def test_any_number_of_steps_is_one_program(caplog):
    train = make_train(EXPERIMENT, IMAGES, SHAPE)
    key, state = start(EXPERIMENT)

    def programs():
        return [record for record in caplog.records if "Compiling" in record.message and "advance" in record.message]

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for num_steps in (1, 2, 3):
            state = train(key, state, num_steps)
    assert len(programs()) == 1


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


def test_the_initial_order_is_not_that_of_the_images():
    assert abs(float(trained(IDLE, 1).sums.kl) - kl_of_images(IDLE)[:BATCH].sum()) > 1e-3


def test_a_batch_larger_than_the_data_set_holds_every_image_once():
    whole = replace(IDLE, training=replace(IDLE.training, batch_size=300))
    assert num_batches(257, 300) == 1
    key, state = start(whole)
    states = [state := trainer(whole)(key, state, 1) for _ in range(2) if not int(state.step) or True]
    np.testing.assert_allclose(float(states[-1].sums.kl), kl_of_images(whole).sum(), rtol=1e-6)


@pytest.mark.parametrize(("num_images", "batch_size", "expected"), [(257, 128, 3), (256, 128, 2), (1, 128, 1), (128, 1, 128)])
def test_the_last_images_make_a_batch_of_their_own(num_images, batch_size, expected):
    assert num_batches(num_images, batch_size) == expected


def test_a_batch_that_the_images_fill_has_the_gradient_of_an_unpadded_one():
    """The last batch is of one image, beside which 127 slots must weigh nothing."""
    rate = 0.5
    descent = replace(EXPERIMENT, training=replace(EXPERIMENT.training, optimizer="sgd", learning_rate=rate))
    key, state = start(descent)
    state = trainer(descent)(key, state, 2)
    before, keys = in_numpy(state.learned.model), run_keys(key)
    after = trainer(descent)(key, state, 1).learned.model
    last = IMAGES[np.asarray(jax.random.permutation(jax.random.fold_in(keys.order, 0), 257))[-1:]]
    binarization_key, sample_key = jax.random.split(jax.random.fold_in(keys.noise, 2))
    x = stochastically_binarized(jnp.asarray(np.resize(last, (BATCH, 12))), binarization_key)[:1]
    noise = jax.random.normal(jax.random.split(sample_key, BATCH)[0], (1, 2))
    gradient = jax.grad(by_hand_loss, has_aux=True)(before, x, noise)[0]
    jax.tree.map(
        lambda p, q, g: np.testing.assert_allclose((p - np.asarray(q)) / rate, g, rtol=1e-3, atol=1e-5), before, after, gradient
    )


def of_seed(tree, seed):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[seed], tree)


@pytest.mark.parametrize(("num_seeds", "num_devices"), [(4, 4), (3, 1), (6, 2)])
def test_seeds_trained_at_once_are_runs_of_their_own_on_any_number_of_devices(num_seeds, num_devices):
    many = replace(EXPERIMENT, num_seeds=num_seeds)
    mesh = seed_mesh(num_seeds)
    assert mesh.size == num_devices
    keys, state = start(many)
    keys, state = place_by_seed((keys, state), mesh)
    sharded = make_train(many, IMAGES, SHAPE, mesh=mesh)
    for _ in range(2):
        state = sharded(keys, state, STEPS)
    assert len(state.step.sharding.device_set) == num_devices
    assert state.step.tolist() == [6] * num_seeds
    alone = trained(many, STEPS, STEPS)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), state, alone)
    for seed in {0, num_seeds - 1}:
        key, solo = seed_keys(jax.random.key(0), num_seeds)[seed], None
        solo = init_state(EXPERIMENT, IMAGES, SHAPE, key)
        for _ in range(2):
            solo = trainer(EXPERIMENT)(key, solo, STEPS)
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), of_seed(state, seed), solo)
    kernel = np.asarray(state.learned.model["decoder"]["head"]["kernel"])
    assert len({kernel[seed].tobytes() for seed in range(num_seeds)}) == num_seeds


def test_one_seed_is_the_first_of_several():
    many = seed_keys(jax.random.key(3), 4)
    one = seed_keys(jax.random.key(3), 1)
    np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(many[0]))
    assert len({tuple(data) for data in np.asarray(jax.random.key_data(many)).tolist()}) == 4


def test_the_keys_of_a_run_differ():
    keys = run_keys(jax.random.key(0))
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == len(keys) == 4


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_the_abstract_state_is_that_of_the_run(num_seeds):
    experiment = replace(EXPERIMENT, num_seeds=num_seeds)
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), start(experiment)[1])
    found = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract_state(experiment, len(IMAGES), SHAPE))
    assert found == expected


def elbos(experiment, num_epochs=3):
    key, state = start(experiment)
    found = []
    for _ in range(num_epochs):
        state = trainer(experiment)(key, state, STEPS)
        found.append(float(state.sums.elbo) / 257)
    return found, state


RATES = {"adam": 0.01, "adamw": 0.01, "adamax": 0.01, "rmsprop": 0.01, "sgd": 0.05}


@pytest.mark.parametrize("optimizer", RATES)
def test_every_optimizer_raises_the_elbo(optimizer):
    training = replace(EXPERIMENT.training, optimizer=optimizer, learning_rate=RATES[optimizer])
    found, _ = elbos(replace(EXPERIMENT, training=training))
    assert found[2] > found[1] > found[0]


def test_the_optimizers_differ_and_take_their_own_settings():
    settings = [{"optimizer": name} for name in ("adam", "adamax", "rmsprop", "sgd")]
    settings += [{"optimizer": "adamw", "weight_decay": 0.3}, {"adam_b1": 0.5}, {"adam_b2": 0.5}, {"adam_epsilon": 0.1}]
    kernels = {
        np.asarray(
            trained(replace(EXPERIMENT, training=replace(EXPERIMENT.training, **each)), 3).learned.model["decoder"]["head"]["kernel"]
        ).tobytes()
        for each in settings
    }
    assert len(kernels) == len(settings)


def test_a_clipped_gradient_is_no_longer_than_its_bound():
    training = replace(EXPERIMENT.training, optimizer="sgd", learning_rate=1.0, gradient_clip=1e-3)
    clipped = replace(EXPERIMENT, training=training)
    before = in_numpy(start(clipped)[1].learned.model)
    after = trained(clipped, 1).learned.model
    squares = jax.tree.map(lambda p, q: float(((p - np.asarray(q)) ** 2).sum()), before, after)
    assert math.sqrt(sum(jax.tree.leaves(squares))) == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_products_train_float32_parameters():
    half = replace(EXPERIMENT, training=replace(EXPERIMENT.training, precision="bfloat16"))
    found, state = elbos(half)
    exact, _ = elbos(EXPERIMENT)
    assert found[2] > found[0]
    assert found != exact
    np.testing.assert_allclose(found, exact, rtol=0.02)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.learned)} == {jnp.float32}


def test_a_trainable_skew_moves_and_a_fixed_one_is_no_parameter():
    objective = ObjectiveConfig(objective="geometric_js", alpha=0.3, alpha_schedule="trainable")
    skewed = replace(GREY, objective=objective)
    assert expit(float(start(skewed)[1].learned.alpha_logit)) == pytest.approx(0.3)
    assert abs(expit(float(trained(skewed, 3).learned.alpha_logit)) - 0.3) > 1e-3
    assert start(replace(GREY, objective=replace(objective, alpha_schedule="fixed")))[1].learned.alpha_logit is None


def test_the_schedule_of_beta_is_counted_in_steps_of_the_whole_training():
    """At step 0 a linear beta is 0, so that descent moves no scale of q beyond what the reconstruction does."""
    objective = ObjectiveConfig(beta=2.0, beta_schedule="linear", beta_ramp=1.0)
    training = replace(GREY.training, optimizer="sgd", learning_rate=0.0)
    state = trained(replace(GREY, objective=objective, training=training), 3)
    # In steps 0, 1 and 2 of 12 beta is 0, 1/6 and 1/3.
    key, first = start(replace(GREY, objective=objective, training=training))
    one = in_numpy(trainer(replace(GREY, objective=objective, training=training))(key, first, 1).sums)
    two = in_numpy(trained(replace(GREY, objective=objective, training=training), 2).sums)
    sums = [in_numpy(jax.tree.map(np.zeros_like, one)), one, two, in_numpy(state.sums)]
    for step, beta in enumerate((0, 1 / 6, 1 / 3)):
        objective, reconstruction, kl = (
            float(getattr(sums[step + 1], name) - getattr(sums[step], name)) for name in ("objective", "reconstruction", "kl")
        )
        assert objective == pytest.approx(reconstruction - beta * kl, rel=1e-4)
        assert kl > 0.1


def test_the_first_step_that_is_not_finite_is_noted_with_its_terms():
    hot = replace(EXPERIMENT, training=replace(EXPERIMENT.training, optimizer="sgd", learning_rate=1e30))
    state = trained(hot, 3, 3)
    assert int(state.failure.step) == 1
    assert not all(math.isfinite(float(term)) for term in state.failure.terms)
