"""Tasks of vae_jax: training, its quality, log p(x), and the matrix products of log p(x) alone."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.interleaved_timing import fastest
from benchmarks.training.layer_products import product_task
from benchmarks.training.training_work import Task, TrainingWork, experiment_of
from vae_jax.vae.config.experiment import Precision
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.models.vae import Params
from vae_jax.vae.results.image_likelihood import image_log_evidence
from vae_jax.vae.training.image_scores import make_score
from vae_jax.vae.training.many_seeds import place_by_seed, seed_keys, seed_mesh
from vae_jax.vae.training.training_loop import init_state, make_train

PRODUCT_ROWS = (250, 1_000, 2_500)
"""Numbers of samples in a product: candidates, of which the fastest counts."""

PRODUCT_SHARE = 10
"""The products alone are timed on a tenth of the images."""


def training_task(work: TrainingWork, *, batch_size: int, precision: Precision, num_seeds: int, num_steps: int) -> Task:
    """Whole steps in one compiled loop, from the first batch of an epoch on; seeds over all devices."""
    experiment = experiment_of(batch_size, precision, num_seeds)
    mesh = seed_mesh(num_seeds) if num_seeds > 1 else None
    keys = place_by_seed(seed_keys(jax.random.key(0), num_seeds), mesh)
    train = make_train(experiment, work.pixels, work.shape, mesh=mesh)
    state = place_by_seed(init_state(experiment, work.pixels, work.shape, keys), mesh)

    def run() -> Mapping[str, Any]:
        nonlocal state
        state = jax.block_until_ready(train(keys, state._replace(step=state.step * 0), num_steps))
        return {"images": min(num_steps * batch_size, len(work.pixels)) * num_seeds}

    return run


def quality_task(work: TrainingWork, *, batch_size: int, precision: Precision, seed: int, num_epochs: int) -> Task:
    """The mean ELBO of the test images after some epochs."""
    experiment = experiment_of(batch_size, precision)
    key = jax.random.key(seed)
    train = make_train(experiment, work.pixels, work.shape)
    score = make_score(Architecture.of(experiment, work.shape), work.binary_test_pixels)

    def run() -> Mapping[str, Any]:
        state = init_state(experiment, work.pixels, work.shape, key)
        for _ in range(num_epochs):
            state = train(key, state, experiment.training.steps_per_epoch(len(work.pixels)))
        return {"elbo": float(score(jax.random.fold_in(key, 0), state.learned.model).elbo.mean())}

    return run


def log_evidence_task(work: TrainingWork, *, num_images: int, num_importance_samples: int) -> Task:
    """log p(x) of test images. The parameters are initial ones, on which no time depends."""
    architecture, params = _model(work)
    images = jnp.asarray(work.binary_test_pixels[:num_images])
    key = jax.random.key(1)

    def run() -> Mapping[str, Any]:
        jax.block_until_ready(
            image_log_evidence(architecture, params, images, key, num_importance_samples=num_importance_samples)
        )
        return {"operations": _operations(work, len(images) * num_importance_samples)}

    return run


def decoder_products_task(work: TrainingWork, *, num_images: int, num_importance_samples: int) -> Task:
    """The decoder's two matrix products alone on as many samples, as many at once as is fastest."""
    _, params = _model(work)
    num_samples = -(-num_images // PRODUCT_SHARE) * num_importance_samples
    sizes = {min(rows, num_samples) for rows in PRODUCT_ROWS}
    candidates = {rows: _decoder_products(params, rows, num_samples) for rows in sizes}
    best, _ = fastest(candidates, rounds=2)

    def run() -> Mapping[str, Any]:
        jax.block_until_ready(candidates[best]())
        return {"operations": _operations(work, num_samples // best * best), "rows": best}

    return run


def _decoder_products(params: Params, rows: int, num_samples: int) -> Callable[[], Array]:
    inner = params["decoder"]["trunk"]["layers"][0]["kernel"]
    outer = params["decoder"]["head"]["kernel"]
    z = jax.random.normal(jax.random.key(0), (rows, len(inner)))

    @jax.jit
    def products(z: Array, inner: Array, outer: Array) -> Array:
        def body(_: Array, z: Array) -> Array:
            hidden, outputs = lax.optimization_barrier(_both(z, inner, outer))
            # The next round waits for this one's products, and is of the same size.
            return z + 1e-9 * (hidden[:, : z.shape[1]] + outputs[:, :1])

        return lax.fori_loop(0, num_samples // rows, body, z)

    return partial(products, z, inner, outer)


def _both(z: Array, inner: Array, outer: Array) -> tuple[Array, Array]:
    hidden = z @ inner
    return hidden, hidden @ outer


def _operations(work: TrainingWork, num_samples: int) -> int:
    """Multiplications and additions in the decoder's products."""
    config = experiment_of(1, "float32").model
    return 2 * num_samples * config.hidden_sizes[0] * (config.latent_size + work.num_pixels)


def _model(work: TrainingWork) -> tuple[Architecture, Params]:
    architecture = Architecture(experiment_of(1, "float32").model, work.shape)
    return architecture, architecture.init(jax.random.key(0))


TASKS = {
    "ours": training_task,
    "quality": quality_task,
    "log_evidence": log_evidence_task,
    "decoder_products": decoder_products_task,
    "product": product_task,
}
