"""VAEs trained with a geometric Jensen-Shannon divergence in the place of the KL, scored on the true ELBO.

    python -m benchmarks.studies.geometric_js --data mnist

Trains the preset `gaussian-20-5`, its variant with the divergence and the one with its dual, over the same seeds: each
seed has the same initial values, order of images and noise under every objective, so that they are compared in pairs.
After each of the numbers of epochs the models are scored alike on the test images. The intervals are Student's, of 95%
over the seeds.

Writes results/geometric_js.json.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import numpy as np

from benchmarks.benchmark_options import benchmark_parser, out_folder
from benchmarks.result_tables import framed_table, print_tables
from benchmarks.saved_results import Record, described_environment, save_results
from vae_jax.runtime import start_jax
from vae_jax.statistics import CONFIDENCE, interval_half_width
from vae_jax.vae.config.experiment import Experiment, ObjectiveConfig
from vae_jax.vae.config.presets import PRESETS
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.data.image_data import ImageData
from vae_jax.vae.data.visible_images import training_images, visible_images
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.training.image_scores import make_score
from vae_jax.vae.training.many_seeds import place_by_seed, seed_keys, seed_mesh
from vae_jax.vae.training.training_loop import init_state, make_train

PRESET = PRESETS["gaussian-20-5"]
OBJECTIVES = {
    "ELBO": PRESET.objective,
    "G-JS": PRESETS["gaussian-20-5-gjs"].objective,
    "dual G-JS": ObjectiveConfig(objective="dual_geometric_js"),
}
TERMS = ("elbo", "reconstruction", "kl")

Means: TypeAlias = Mapping[str, np.ndarray]
"""Each term's mean over the test images, by seed [S] (nats)."""


@dataclass(frozen=True)
class DivergenceSizes:
    """DivergenceSizes and numbers of runs."""

    num_seeds: int
    epochs: tuple[int, ...]
    """The numbers of epochs after which the models are scored."""
    num_images: int | None
    """Training images; None is all."""


FULL = DivergenceSizes(num_seeds=8, epochs=(5, 50), num_images=None)
QUICK = DivergenceSizes(num_seeds=2, epochs=(1, 2), num_images=500)


def main(options: argparse.Namespace) -> None:
    """Trains and scores every objective's models, prints the table and saves the results."""
    start_jax("float32")
    sizes = QUICK if options.quick else FULL
    images = load_images(options.data)
    means = {
        name: _means_by_epoch(_experiment(objective, sizes), images, sizes) for name, objective in OBJECTIVES.items()
    }
    rows = [_row(name, epochs, means) for epochs in sizes.epochs for name in OBJECTIVES]
    _print(rows)
    results = {
        "environment": described_environment(PRESET.seed, ("flax", "optax")),
        "method": {"preset": "gaussian-20-5", "confidence": CONFIDENCE, "num_seeds": sizes.num_seeds},
        "rows": rows,
    }
    save_results(results, out_folder(options), "geometric_js.json")


def _experiment(objective: ObjectiveConfig, sizes: DivergenceSizes) -> Experiment:
    training = replace(PRESET.training, num_epochs=max(sizes.epochs))
    return replace(PRESET, objective=objective, training=training, num_seeds=sizes.num_seeds)


def _means_by_epoch(experiment: Experiment, images: ImageData, sizes: DivergenceSizes) -> dict[int, Means]:
    """Trains the seeds at once, and scores them after each of the numbers of epochs."""
    print(f"training by {experiment.objective.objective} ...", flush=True)
    pixels = training_images(experiment, images.train)[: sizes.num_images]
    mesh = seed_mesh(experiment.num_seeds)
    keys = place_by_seed(seed_keys(jax.random.key(experiment.seed), experiment.num_seeds), mesh)
    state = place_by_seed(init_state(experiment, pixels, images.shape, keys), mesh)
    train = make_train(experiment, pixels, images.shape, mesh=mesh)
    architecture = Architecture.of(experiment, images.shape)
    visible = visible_images(experiment, images.test, "test")
    score = make_score(architecture, visible, num_seeds=experiment.num_seeds, mesh=mesh)
    means = {}
    for epoch in range(1, max(sizes.epochs) + 1):
        state = train(keys, state, experiment.training.steps_per_epoch(len(pixels)))
        if epoch in sizes.epochs:
            scores = jax.device_get(score(keys, state.learned.model))
            means[epoch] = {term: np.asarray(getattr(scores, term), float).mean(-1) for term in TERMS}
    return means


def _row(name: str, epochs: int, means: Mapping[str, Mapping[int, Means]]) -> dict[str, Any]:
    """An objective's terms, and its ELBO less the one reached by training on the ELBO, seed by seed."""
    here = means[name][epochs]
    gaps = here["elbo"] - means["ELBO"][epochs]["elbo"]
    return {
        "objective": name,
        "num_epochs": epochs,
        **{term: _with_interval(here[term]) for term in TERMS},
        "elbo_over_elbo_training": None if name == "ELBO" else _with_interval(gaps),
    }


def _with_interval(values: np.ndarray) -> dict[str, Any]:
    """The mean of the seeds' values, and the half width of its interval."""
    return {
        "mean": float(values.mean()),
        "half_width": float(interval_half_width(values)),
        "by_seed": values.tolist(),
    }


def _print(rows: Sequence[Record]) -> None:
    title = "Test images (nats), with intervals of 95% over the seeds"
    columns = ("trained by", "epochs", "ELBO", "gain on ELBO", "log p(x|z)", "KL")
    print_tables([framed_table(title, columns, [_cells(row) for row in rows])])


def _cells(row: Record) -> list[str]:
    shown = [_shown(row[term], 0) for term in ("elbo", "elbo_over_elbo_training", "reconstruction")]
    return [row["objective"], str(row["num_epochs"]), *shown, _shown(row["kl"], 1)]


def _shown(value: Record | None, digits: int) -> str:
    return "-" if value is None else f"{value['mean']:.{digits}f} ± {value['half_width']:.{digits}f}"


def _parse() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, quick="few images, seeds and epochs")
    parser.add_argument("--data", default="mnist", help="name of a dataset or folder of IDX files (mnist)")
    return parser.parse_args()


if __name__ == "__main__":
    main(_parse())
