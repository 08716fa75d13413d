"""Training a VAE: whole epochs in one compiled loop, one model or many at once.

The key of everything random in a run is folded from the run's: a step's from its number, a permutation's from its
epoch's. What a step does is the same however the steps are grouped into calls, so that a run may stop after any of them
and be resumed.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt8

from vae_jax.runtime import wide_vectors
from vae_jax.typing import PRNGKey, Scalar
from vae_jax.vae.config.experiment import DataConfig, Experiment
from vae_jax.vae.data.binarization import WHITE, batch_pixels
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import Params
from vae_jax.vae.training.many_seeds import SeedKeys, over_seeds, seed_keys, to_devices
from vae_jax.vae.training.objectives import BatchTerms, DivergenceWeights, batch_terms
from vae_jax.vae.training.optimizers import make_optimizer
from vae_jax.vae.training.training_schedules import alpha_at, beta_at


class Learned(NamedTuple):
    """All parameters that are trained."""

    model: Params
    alpha_logit: Scalar | None
    """Logit of a trainable skew, or None."""


class Failure(NamedTuple):
    """The first step with a term that was not finite, and its terms."""

    step: Int[Array, "..."]
    """Its number, or -1."""
    terms: BatchTerms


class TrainState(NamedTuple):
    """State of a run between two steps. Together with the run's key it determines the rest of the run."""

    learned: Learned
    optimizer: Any
    step: Int[Array, "..."]
    """Number of steps done."""
    sums: BatchTerms
    """Sums over the images of the epoch so far."""
    failure: Failure


def steps_done(state: TrainState) -> int:
    """The number of steps that a state has seen; with several seeds, each has seen as many."""
    return int(np.ravel(jax.device_get(state.step))[0])


class RunKeys(NamedTuple):
    """The keys of a run's independent uses of chance."""

    init: PRNGKey
    order: PRNGKey
    noise: PRNGKey
    evaluation: PRNGKey


def run_keys(key: PRNGKey) -> RunKeys:
    """Splits the key of a run."""
    return RunKeys(*jax.random.split(key, len(RunKeys._fields)))


Train: TypeAlias = Callable[[SeedKeys, TrainState, int], TrainState]
"""The key of a run, its state and how many steps to do, to the state after them. The state handed in is used up."""


def init_state(
    experiment: Experiment, images: UInt8[np.ndarray, "N X"], shape: tuple[int, ...], key: SeedKeys
) -> TrainState:
    """Makes the state of a run before its first step.

    Args:
        experiment: the experiment. With `num_seeds` above 1 every array of the state has a leading axis of that length.
        images: the prepared training images, times 255 [N, X].
        shape: shape of an image.
        key: key of the run; with `num_seeds` above 1, the keys of the runs [S].

    Example:
        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, init_state
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)))
        >>> state = init_state(experiment, np.zeros((10, 64), np.uint8), (8, 8), jax.random.key(0))
        >>> state.step.item(), sorted(state.learned.model)
        (0, ['decoder', 'encoder'])
    """
    mean_image = jnp.asarray(images.mean(axis=0) / WHITE, jnp.float32)
    return jax.jit(_make_init(_compiled_settings(experiment), len(images), shape))(key, mean_image)


def abstract_state(experiment: Experiment, num_images: int, shape: tuple[int, ...]) -> TrainState:
    """The shapes and dtypes of a run's state."""
    keys = jax.eval_shape(lambda: seed_keys(jax.random.key(0), experiment.num_seeds))
    mean_image = jax.ShapeDtypeStruct((math.prod(shape),), jnp.float32)
    return jax.eval_shape(_make_init(_compiled_settings(experiment), num_images, shape), keys, mean_image)


def _compiled_settings(experiment: Experiment) -> Experiment:
    """The experiment without what its programs do not depend on: runs of one process that differ in it share them."""
    return replace(experiment, seed=0, data=DataConfig(binarization=experiment.data.binarization))


@lru_cache(maxsize=16)
def _make_init(
    experiment: Experiment, num_images: int, shape: tuple[int, ...]
) -> Callable[[PRNGKey, Array], TrainState]:
    architecture = Architecture.of(experiment, shape)
    optimizer = make_optimizer(experiment.training, experiment.training.steps_per_epoch(num_images))

    def init(key: PRNGKey, mean_image: Array) -> TrainState:
        learned: Any = Learned(
            architecture.init(run_keys(key).init, mean_image),
            _logit(experiment.objective.alpha) if experiment.objective.alpha_schedule == "trainable" else None,
        )
        zeros = BatchTerms(*(jnp.zeros(()),) * len(BatchTerms._fields))
        # No weak types, for a checkpoint gives none back: resuming would trace the loop again.
        step, no_failure = jnp.zeros((), int), Failure(jnp.full((), -1, int), zeros)
        return TrainState(learned, optimizer.init(learned), step, zeros, no_failure)

    return init if experiment.num_seeds == 1 else jax.vmap(init, in_axes=(0, None))


def make_train(
    experiment: Experiment, images: UInt8[np.ndarray, "N X"], shape: tuple[int, ...], *, mesh: Mesh | None = None
) -> Train:
    """Makes the function that trains, from a run's key, its state and a number of steps to the state after them.

    The steps must not lead beyond the end of the epoch that the state is in. The function is compiled once, for any
    number of steps. The state handed in is used up.

    Args:
        experiment: the experiment. With `num_seeds` above 1, keys and states have a leading axis of that length.
        images: the prepared training images, times 255 [N, X]. They are copied to the device once.
        shape: shape of an image.
        mesh: devices that seeds are sharded over; see `seed_mesh`.

    Example:
        An epoch of 40 steps on black images. A model that knows nothing has an ELBO of -44.36 nats per image:

        >>> import jax
        >>> import numpy as np
        >>> from vae_jax.vae import Experiment, ModelConfig, TrainingConfig, init_state, make_train
        >>> training = TrainingConfig(batch_size=16, learning_rate=0.03)
        >>> experiment = Experiment(model=ModelConfig(latent_size=2, hidden_sizes=(8,)), training=training)
        >>> images, key = np.zeros((640, 64), np.uint8), jax.random.key(0)
        >>> state = init_state(experiment, images, (8, 8), key)
        >>> state = make_train(experiment, images, (8, 8))(key, state, 40)
        >>> state.step.item(), bool(state.sums.elbo / len(images) > -30)
        (40, True)
    """
    advance = _make_advance(_compiled_settings(experiment), len(images), shape, mesh)
    pixels = to_devices(images, mesh)
    return lambda key, state, num_steps: advance(pixels, key, state, jnp.asarray(num_steps))


@lru_cache(maxsize=16)
def _make_advance(
    experiment: Experiment, num_images: int, shape: tuple[int, ...], mesh: Mesh | None
) -> Callable[..., TrainState]:
    step = _make_step(experiment, num_images, shape)
    steps_per_epoch = experiment.training.steps_per_epoch(num_images)
    num_slots = steps_per_epoch * experiment.training.batch_size

    def advance(pixels: UInt8[Array, "N X"], key: PRNGKey, state: TrainState, num_steps: Int[Array, ""]) -> TrainState:
        keys = run_keys(key)
        epoch, batch = jnp.divmod(state.step, steps_per_epoch)
        order = jax.random.permutation(jax.random.fold_in(keys.order, epoch), num_images)
        # The last batch is filled up with an image that has no weight.
        order = jnp.concatenate([order, jnp.zeros(num_slots - num_images, order.dtype)])
        sums = jax.tree.map(lambda total: jnp.where(batch == 0, 0, total), state.sums)
        body = partial(step, pixels, order, keys.noise)
        return lax.fori_loop(0, num_steps, lambda _, state: body(state), state._replace(sums=sums))

    advance = over_seeds(advance, experiment.num_seeds, mesh)
    return jax.jit(advance, donate_argnums=2, compiler_options=wide_vectors())


def _make_step(experiment: Experiment, num_images: int, shape: tuple[int, ...]) -> Callable[..., TrainState]:
    config = experiment.training
    architecture = Architecture.of(experiment, shape)
    steps_per_epoch = config.steps_per_epoch(num_images)
    optimizer = make_optimizer(config, steps_per_epoch)

    def step(pixels: Array, order: Array, noise_key: PRNGKey, state: TrainState) -> TrainState:
        binarization_key, sample_key = jax.random.split(jax.random.fold_in(noise_key, state.step))
        slots = state.step % steps_per_epoch * config.batch_size + jnp.arange(config.batch_size)
        counted = (slots < num_images).astype(jnp.float32)
        x = batch_pixels(pixels[order[slots]], experiment.data.binarization, binarization_key)
        chex.assert_shape(x, (config.batch_size, math.prod(shape)))

        def loss(learned: Learned) -> tuple[Scalar, BatchTerms]:
            terms = batch_terms(
                experiment.objective,
                architecture.bind(learned.model),
                x,
                sample_key,
                image_weights=counted,
                weights=current_weights(experiment, learned, state.step, steps_per_epoch),
            )
            return -terms.objective, terms

        gradient, terms = jax.grad(loss, has_aux=True)(state.learned)
        # Optax names arrays alone as the leaves of what it updates; any pytree does.
        learned: Any = state.learned
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, learned)
        learned = optax.apply_updates(learned, updates)
        chex.assert_trees_all_equal_shapes_and_dtypes(learned, state.learned)
        sums = jax.tree.map(lambda total, mean: total + counted.sum() * mean, state.sums, terms)
        return TrainState(learned, optimizer_state, state.step + 1, sums, _noted(state.failure, terms, state.step))

    return step


def _noted(failure: Failure, terms: BatchTerms, step: Int[Array, ""]) -> Failure:
    """The failure so far, or the step's, if it is the first with a term that is not finite."""
    finite = jnp.isfinite(jnp.stack(terms)).all()
    new = (failure.step < 0) & ~finite
    return jax.tree.map(lambda here, before: jnp.where(new, here, before), Failure(step, terms), failure)


def current_weights(
    experiment: Experiment, learned: Learned, step: Int[Array, ""] | int, steps_per_epoch: int
) -> DivergenceWeights:
    """The weight and the skew of the divergence at a step."""
    objective, num_steps = experiment.objective, experiment.training.num_epochs * steps_per_epoch
    logit = learned.alpha_logit
    alpha = alpha_at(objective, step, num_steps) if logit is None else jax.nn.sigmoid(logit)
    return DivergenceWeights(beta_at(objective, step, num_steps), alpha)


def _logit(share: float) -> Scalar:
    inner = jnp.clip(jnp.asarray(share, float), 1e-3, 1 - 1e-3)
    return jnp.log(inner) - jnp.log1p(-inner)
