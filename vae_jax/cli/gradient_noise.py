"""`vae-jax variance --run`: the signal-to-noise of a trained model's gradient, layer by layer."""

import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.opened_runs import images_of_run, opened_run, warn
from vae_jax.cli.output_folder import command_line, save_figure, staged
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.files import write_csv, write_json
from vae_jax.runtime import environment, start_jax
from vae_jax.vae.config.experiment import Experiment


def report_gradient(
    run: Path,
    out: Path,
    *,
    estimators: tuple[str, ...] | None,
    num_samples: tuple[int, ...] | None,
    num_replicates: int,
    seed: int,
) -> None:
    """Measures, prints and saves the gradient's signal and noise for a run's best model.

    Args:
        run: the folder of the run.
        out: folder for the results.
        estimators: by default the run's own.
        num_samples: of an image; by default the run's own.
        num_replicates: draws of the gradient.
        seed: of the draws.

    Raises:
        Misuse: no run, or arguments that nothing can be measured for.
    """
    folder, experiment = opened_run(run)
    start_jax("float32", num_cpu_devices=1)
    import jax

    from vae_jax import plotting
    from vae_jax.vae.data.visible_images import training_images
    from vae_jax.vae.results.gradient_noise import noise_by_layer, training_loss
    from vae_jax.vae.results.trained_model import load_trained
    from vae_jax.vae.training.experiment_checks import check_experiment
    from vae_jax.vae.training.training_loop import current_weights

    images = images_of_run(folder, experiment)
    trained = load_trained(folder, on_damage=warn).of_seed(0)
    pixels = jax.device_put(training_images(experiment, images.train))
    steps_per_epoch = experiment.training.steps_per_epoch(len(pixels))
    weights = current_weights(experiment, trained.learned, trained.step, steps_per_epoch)
    settings: dict[str, Any] = {
        "run": str(run),
        "estimators": estimators or (experiment.objective.estimator,),
        "num_samples": num_samples or (experiment.objective.num_samples,),
        "num_replicates": num_replicates,
        "seed": seed,
    }
    rows = []
    with staged(out) as stage, shown_steps() as on_progress:
        for estimator in settings["estimators"]:
            for size in settings["num_samples"]:
                objective = replace(experiment.objective, estimator=estimator, num_samples=size)
                measured = replace(experiment, objective=objective)
                with refusals_are_misuse():
                    check_experiment(measured)
                    layers = noise_by_layer(
                        training_loss(measured, trained.architecture, pixels, weights),
                        trained.params, jax.random.key(seed), num_replicates,
                        on_progress=partial(on_progress, f"{estimator}, {size:,} samples"),
                    )  # fmt: skip
                rows += [{"estimator": estimator, "num_samples": size} | asdict(layer) for layer in layers]
        about = {"run": run, "environment": environment("float32", seed), "batch_size": experiment.training.batch_size}
        write_json(stage / "gradient.json", about | {"rows": rows})
        write_csv(stage / "gradient.csv", rows)
        line = command_line(["variance"], settings)
        write_json(stage / "config.json", {"command": "variance", "settings": settings, "command_line": line})
        save_figure(stage, "signal_to_noise", plotting.signal_to_noise_by_layer(_drawn(rows)))
    _print(rows, experiment, out)


def _drawn(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the layers that have noise, and so a ratio to draw, by every estimator."""
    without = {row["layer"] for row in rows if not math.isfinite(row["signal_to_noise"])}
    return [row for row in rows if row["layer"] not in without]


def _print(rows: list[dict[str, Any]], experiment: Experiment, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for estimator, size in dict.fromkeys((row["estimator"], row["num_samples"]) for row in rows):
        title = f"gradient by {estimator}, {size:,} sample{'s' * (size > 1)} an image"
        look: dict[str, Any] = {"title_justify": "left", "title_style": "bold", "box": None, "pad_edge": False}
        table = Table(title=title, padding=(0, 1, 0, 0), **look)
        table.add_column("layer", no_wrap=True)
        for header in ("parameters", "signal ± se", "noise ± se", "signal / noise"):
            table.add_column(header, justify="right", no_wrap=True)
        for row in rows:
            if (row["estimator"], row["num_samples"]) == (estimator, size):
                figures = (_figure(row, name) for name in ("signal", "noise", "signal_to_noise"))
                table.add_row(row["layer"].replace(".layers", ""), f"{row['num_parameters']:,}", *figures)
        console.print(table)
    console.print(
        f"Signal is the length of the mean gradient, noise the root of the summed variances over batches of "
        f"{experiment.training.batch_size} and their draws, by {rows[0]['num_replicates']:,} replicates. "
        f"Saved in {out}: gradient.json, gradient.csv, signal_to_noise.png, config.json",
        markup=False,
    )


def _figure(row: dict[str, Any], name: str) -> str:
    from vae_jax.cli.number_formats import with_error

    if math.isnan(row[name]):
        return "undefined"
    error = row[f"{name}_se"]
    return f"< {row[name]:.2g}" if error is None else with_error(row[name], error)
