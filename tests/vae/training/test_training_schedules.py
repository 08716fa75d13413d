import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.vae.config.experiment import Experiment, ObjectiveConfig, TrainingConfig
from vae_jax.vae.training.training_schedules import alpha_at, beta_at, depends_on_num_epochs, learning_rate_schedule


def scheduled(schedule, steps, num_steps, **config):
    """The values of a schedule at steps."""
    config = ObjectiveConfig(**config)
    values = jax.jit(jax.vmap(lambda step: schedule(config, step, num_steps)))(jnp.asarray(steps, jnp.int32))
    assert values.dtype == jnp.float32
    return values


betas, alphas = partial(scheduled, beta_at), partial(scheduled, alpha_at)


def test_a_constant_beta():
    np.testing.assert_array_equal(betas([0, 5, 10**7], 10, beta=4.0), [4, 4, 4])


def test_a_linear_beta_grows_over_its_ramp_and_stays():
    got = betas([0, 1, 2, 4, 5, 9, 10, 20], 10, beta=2.0, beta_schedule="linear", beta_ramp=0.5)
    np.testing.assert_allclose(got, [0, 0.4, 0.8, 1.6, 2, 2, 2, 2], rtol=1e-7)
    whole = betas([5, 10], 10, beta=2.0, beta_schedule="linear", beta_ramp=1.0)
    np.testing.assert_array_equal(whole, [1, 2])


def test_a_cyclical_beta_starts_again_in_every_cycle():
    config = {"beta": 1.0, "beta_schedule": "cyclical", "beta_ramp": 0.5, "beta_cycles": 4}
    got = betas([0, 1, 2, 4, 5, 9, 10, 11, 15, 19, 20, 30, 39, 40], 40, **config)
    np.testing.assert_allclose(got, [0, 0.2, 0.4, 0.8, 1, 1, 0, 0.2, 1, 1, 0, 0, 1, 0], rtol=1e-7)


def test_cycles_need_not_be_whole_steps_long():
    # 10 steps in 4 cycles of 2.5: steps 0 to 2 lie 0, 0.4 and 0.8 into the first, step 3 0.2 into the second.
    got = betas(range(6), 10, beta=1.0, beta_schedule="cyclical", beta_ramp=1.0, beta_cycles=4)
    np.testing.assert_allclose(got, [0, 0.4, 0.8, 0.2, 0.6, 0], rtol=1e-6)


def exact_cyclical(step, num_steps, num_cycles, ramp):
    place = step * num_cycles % num_steps
    return min(1.0, place / (ramp * num_steps))


def test_a_long_cyclical_training_is_exact():
    num_steps, num_cycles = 9_840_001, 100
    edges = [cycle * num_steps // num_cycles for cycle in range(0, num_cycles, 7)]
    steps = [step + offset for step in edges for offset in (0, 1, 2, 1000) if step + offset < num_steps]
    got = betas(steps, num_steps, beta=1.0, beta_schedule="cyclical", beta_ramp=0.5, beta_cycles=num_cycles)
    expected = [exact_cyclical(step, num_steps, num_cycles, 0.5) for step in steps]
    np.testing.assert_allclose(got, expected, rtol=3e-7)
    # The remainder of floats is off by per cents where a cycle begins.
    length = np.float32(num_steps / num_cycles)
    of_floats = np.minimum(1, np.float32(steps) % length / length / np.float32(0.5))
    assert not np.allclose(of_floats, expected, rtol=1e-3, atol=0)


def test_a_step_may_be_a_number():
    config = ObjectiveConfig(beta_schedule="linear", beta_ramp=1.0)
    assert beta_at(config, 3, 6) == 0.5
    assert beta_at(config, jnp.int32(3), 6) == 0.5


def test_alphas():
    np.testing.assert_array_equal(alphas([0, 9], 10, alpha=0.25), [0.25, 0.25])
    np.testing.assert_array_equal(alphas([0, 9], 10, alpha=0.25, alpha_schedule="trainable"), [0.25, 0.25])
    linear = alphas([0, 1, 5, 10, 11], 10, alpha=0.2, alpha_end=0.7, alpha_schedule="linear")
    np.testing.assert_allclose(linear, [0.2, 0.25, 0.45, 0.7, 0.7], rtol=1e-6)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_a_linear_alpha_never_leaves_its_range(ends):
    num_steps = 7_777
    values = alphas(range(num_steps + 1), num_steps, alpha=ends[0], alpha_end=ends[1], alpha_schedule="linear")
    assert (values[0], values[-1]) == ends
    assert 0 <= values.min() <= values.max() <= 1


def rates(steps, steps_per_epoch, **config):
    schedule = learning_rate_schedule(TrainingConfig(**config), steps_per_epoch)
    return np.array([jax.jit(schedule)(jnp.int32(step)) for step in steps])


def test_learning_rates_by_hand():
    config = {"learning_rate": 0.01, "num_epochs": 10}
    np.testing.assert_allclose(rates([0, 10**7], 100, **config), 0.01, rtol=1e-7)
    cosine = rates([0, 250, 500, 1000, 1001], 100, learning_rate_schedule="cosine", **config)
    np.testing.assert_allclose(cosine, [0.01, 0.005 * (1 + math.sqrt(0.5)), 0.005, 0, 0], rtol=1e-6, atol=1e-9)
    exponential = rates([0, 500, 1000, 1001], 100, learning_rate_schedule="exponential", **config)
    np.testing.assert_allclose(exponential, [0.01, 0.001, 0.0001, 0.0001], rtol=1e-6)


def test_the_stages_take_3280_epochs_and_the_last_goes_on():
    steps_per_epoch = 3000
    starts = [0, 1, 4, 13, 40, 121, 364, 1093]
    steps = [epoch * steps_per_epoch for epoch in starts] + [(epoch * steps_per_epoch) - 1 for epoch in starts[1:]]
    got = rates([*steps, 3280 * steps_per_epoch], steps_per_epoch, learning_rate=1e-3, learning_rate_schedule="stages")
    expected = [1e-3 * 10 ** (-stage / 7) for stage in range(8)]
    np.testing.assert_allclose(got, [*expected, *expected[:-1], 1e-4], rtol=1e-6)


def test_stages_do_not_depend_on_the_number_of_epochs():
    configs = [TrainingConfig(num_epochs=n, learning_rate_schedule="stages") for n in (3, 300)]
    first, second = (learning_rate_schedule(config, 10)(jnp.int32(55)) for config in configs)
    assert first == second


@pytest.mark.parametrize(
    ("objective", "training", "expected"),
    [
        ({}, {}, False),
        ({"alpha_schedule": "trainable"}, {"learning_rate_schedule": "stages"}, False),
        ({"beta_schedule": "linear"}, {}, True),
        ({"beta_schedule": "cyclical"}, {}, True),
        ({"alpha_schedule": "linear"}, {}, True),
        ({}, {"learning_rate_schedule": "cosine"}, True),
        ({}, {"learning_rate_schedule": "exponential"}, True),
    ],
)
def test_what_depends_on_the_number_of_epochs(objective, training, expected):
    experiment = replace(Experiment(), objective=ObjectiveConfig(**objective), training=TrainingConfig(**training))
    assert depends_on_num_epochs(experiment) is expected


MISUSES = [
    (r"beta_ramp must be in \(0, 1\], got 0.0", lambda: beta_at(
        ObjectiveConfig(beta_schedule="linear", beta_ramp=0.0), 0, 10)),
    (r"beta_ramp must be in \(0, 1\], got 1.5", lambda: beta_at(
        ObjectiveConfig(beta_schedule="cyclical", beta_ramp=1.5), 0, 10)),
    ("beta_cycles must be at least 1, got 0", lambda: beta_at(
        ObjectiveConfig(beta_schedule="cyclical", beta_cycles=0), 0, 10)),
    (r"beta_cycles times 10000000 steps must be below 2\^31, got 1000", lambda: beta_at(
        ObjectiveConfig(beta_schedule="cyclical", beta_cycles=1000), 0, 10_000_000)),
    (r"alpha must be in \[0, 1\], got -0.1", lambda: alpha_at(ObjectiveConfig(alpha=-0.1), 0, 10)),
    (r"alpha_end must be in \[0, 1\], got 2.0", lambda: alpha_at(
        ObjectiveConfig(alpha_schedule="linear", alpha_end=2.0), 0, 10)),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), MISUSES)
def test_misuse_is_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()
