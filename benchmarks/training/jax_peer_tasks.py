"""Tasks of JAX peers: a jitted step dispatched from Python, and NumPyro with one loop an epoch."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from jax import Array, lax
from jax.example_libraries import stax
from numpyro import optim
from numpyro.infer import SVI, Trace_ELBO

from benchmarks.training.training_work import HIDDEN_SIZE, LATENT_SIZE, LEARNING_RATE, Task, TrainingWork, batches
from vae_jax.vae.config.experiment import Precision

WHITE = 255


class FlaxVAE(nn.Module):
    """784-256-50 and back, as in the Flax example. The layers compute in `dtype`."""

    num_pixels: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, key: Array) -> tuple[Array, Array, Array]:
        dense = partial(nn.Dense, dtype=self.dtype)
        hidden = nn.relu(dense(HIDDEN_SIZE)(x))
        loc, log_variance = (dense(LATENT_SIZE)(hidden).astype(jnp.float32) for _ in range(2))
        z = loc + jnp.exp(log_variance / 2) * jax.random.normal(key, loc.shape)
        logits = dense(self.num_pixels)(nn.relu(dense(HIDDEN_SIZE)(z)))
        return logits.astype(jnp.float32), loc, log_variance


def jitted_step_task(
    work: TrainingWork, *, batch_size: int, precision: Precision, num_seeds: int, num_steps: int
) -> Task:
    """Keeps the images on the device, as uint8; a step is handed its batch's indices. Many seeds by `vmap`."""
    pixels = jnp.asarray(work.pixels)
    model = FlaxVAE(work.num_pixels, jnp.dtype(precision))
    keys = jax.random.split(jax.random.key(0), num_seeds)

    def step(pixels: Array, state: TrainState, indices: np.ndarray, key: Array) -> TrainState:
        return _trained(state, pixels[indices], jax.random.fold_in(key, state.step))

    init = partial(_init, model)
    if num_seeds > 1:
        step, init = jax.vmap(step, in_axes=(None, 0, 0, 0)), jax.vmap(init)
    else:
        keys = keys[0]
    compiled, state = jax.jit(step, donate_argnums=1), init(keys)
    generator = np.random.default_rng(0)

    def run() -> Mapping[str, Any]:
        nonlocal state
        orders = [batches(generator, len(work.pixels), batch_size, num_steps) for _ in range(num_seeds)]
        for indices in zip(*orders, strict=True):
            state = compiled(pixels, state, np.stack(indices) if num_seeds > 1 else indices[0], keys)
        jax.block_until_ready(state)
        return {"images": num_steps * batch_size * num_seeds}

    return run


def host_batches_task(
    work: TrainingWork, *, batch_size: int, precision: Precision, num_seeds: int, num_steps: int
) -> Task:
    """Hands each step its batch from the host and a key split off in Python, as the Flax example does."""
    if num_seeds > 1:
        raise ValueError(f"num_seeds must be 1, got {num_seeds}: the example trains one model")
    state = _init(FlaxVAE(work.num_pixels, jnp.dtype(precision)), jax.random.key(0))
    step = jax.jit(_trained, donate_argnums=0)
    generator, key = np.random.default_rng(0), jax.random.key(1)

    def run() -> Mapping[str, Any]:
        nonlocal state, key
        for indices in batches(generator, len(work.pixels), batch_size, num_steps):
            key, step_key = jax.random.split(key)
            state = step(state, work.pixels[indices], step_key)
        jax.block_until_ready(state)
        return {"images": num_steps * batch_size}

    return run


def _init(model: FlaxVAE, key: Array) -> TrainState:
    params = model.init(key, jnp.ones((1, model.num_pixels)), key)
    return TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(LEARNING_RATE))


def _trained(state: TrainState, pixels: Array, key: Array) -> TrainState:
    """The state after a step on a batch of grey pixels [B, X]."""
    binarization_key, sample_key = jax.random.split(key)
    x = jax.random.bernoulli(binarization_key, pixels / WHITE).astype(jnp.float32)

    def loss(params: Any) -> Array:
        logits, loc, log_variance = state.apply_fn(params, x, sample_key)
        cross_entropy = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
        kl = (loc**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1) / 2
        return (cross_entropy + kl).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def numpyro_task(work: TrainingWork, *, batch_size: int, precision: Precision, num_seeds: int, num_steps: int) -> Task:
    """Trains as NumPyro's vae.py: SVI with `Trace_ELBO`, one `fori_loop` an epoch, float images on the device.

    The network, its activation and the logits are ours. Many seeds by `vmap`.
    """
    images = jnp.asarray(work.pixels, jnp.float32) / WHITE
    svi = _svi(work, jnp.dtype(precision))
    keys = jax.random.split(jax.random.key(0), num_seeds)

    def epoch(images: Array, state: Any, order: Array, key: Array) -> tuple[Array, Any]:
        def body(number: Array, carried: tuple[Array, Any]) -> tuple[Array, Any]:
            total, state = carried
            indices = lax.dynamic_slice_in_dim(order, number * batch_size, batch_size)
            batch = _binarized(jax.random.fold_in(key, number), images[indices])
            state, loss = svi.update(state, batch)
            return total + loss, state

        return lax.fori_loop(0, num_steps, body, (jnp.zeros(()), state))

    def init(key: Array) -> Any:
        return svi.init(key, images[:batch_size].round())

    if num_seeds > 1:
        epoch, init = jax.vmap(epoch, in_axes=(None, 0, 0, 0)), jax.vmap(init)
    else:
        keys = keys[0]
    compiled, state = jax.jit(epoch), jax.jit(init)(keys)
    generator = np.random.default_rng(0)

    def run() -> Mapping[str, Any]:
        nonlocal state
        orders = jnp.stack([generator.permutation(len(images)).astype(np.int32) for _ in range(num_seeds)])
        _, state = jax.block_until_ready(compiled(images, state, orders if num_seeds > 1 else orders[0], keys))
        return {"images": num_steps * batch_size * num_seeds}

    return run


def _binarized(key: Array, batch: Array) -> Array:
    return jax.random.bernoulli(key, batch).astype(batch.dtype)


def _svi(work: TrainingWork, dtype: Any) -> SVI:
    encoder = stax.serial(
        stax.Dense(HIDDEN_SIZE),
        stax.Relu,
        stax.FanOut(2),
        stax.parallel(stax.Dense(LATENT_SIZE), stax.Dense(LATENT_SIZE)),
    )
    decoder = stax.serial(stax.Dense(HIDDEN_SIZE), stax.Relu, stax.Dense(work.num_pixels))
    encoder, decoder = _in_dtype(encoder, dtype), _in_dtype(decoder, dtype)

    def model(batch: Array) -> None:
        decode: Any = numpyro.module("decoder", decoder, (len(batch), LATENT_SIZE))
        with numpyro.plate("batch", len(batch)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand((LATENT_SIZE,)).to_event(1))
            numpyro.sample("obs", dist.Bernoulli(logits=decode(z)).to_event(1), obs=batch)

    def guide(batch: Array) -> None:
        encode: Any = numpyro.module("encoder", encoder, batch.shape)
        loc, log_variance = encode(batch)
        with numpyro.plate("batch", len(batch)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_variance / 2)).to_event(1))

    return SVI(model, guide, optim.Adam(LEARNING_RATE), Trace_ELBO())


def _in_dtype(network: tuple[Any, Any], dtype: Any) -> tuple[Any, Any]:
    """A stax network whose layers compute in `dtype`, with float32 parameters and results."""
    init, apply = network

    def cast(params: Any, inputs: Array, **more: Any) -> Any:
        outputs = apply(jax.tree.map(lambda leaf: leaf.astype(dtype), params), inputs.astype(dtype), **more)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), outputs)

    return init, cast


TASKS = {"jitted step": jitted_step_task, "jitted step, host batches": host_batches_task, "numpyro": numpyro_task}
