"""`vae-jax gradient-noise`: the signal-to-noise of a trained model's gradient, layer by layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_jax.cli.misuse import refusals_are_misuse
from vae_jax.cli.opened_runs import images_of_run, opened_model
from vae_jax.cli.options import (
    Data,
    DataDir,
    Debug,
    ModelOptions,
    NumReplicates,
    Out,
    Seed,
    check_options,
    optional,
    settings_of,
)
from vae_jax.cli.output_folder import save_config, save_figure, save_table, staged
from vae_jax.cli.progress_bars import shown_steps
from vae_jax.runtime import environment, start_jax
from vae_jax.settings import AT_LEAST_1, documented

if TYPE_CHECKING:
    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.results.trained_model import TrainedModel

SAVED = ("gradient_noise.json", "gradient_noise.csv", "signal_to_noise.png", "config.json")


@dataclass(frozen=True)
@documented
class GradientNoiseCommand:
    """Measures the signal and the noise of a trained model's gradient, layer by layer.

    The signal is the length of the mean gradient, the noise its standard deviation over batches and samples. Prints
    a table for each estimator, and saves them with their figure as gradient_noise.json, gradient_noise.csv,
    signal_to_noise.png (and .pdf) and config.json.
    """

    model: ModelOptions
    """The trained model."""
    data: Data = None
    data_dir: DataDir = None
    estimators: Annotated[tuple[str, ...], optional("[STR ...]")] = ()
    """Gradient estimators to measure. By default the run's own."""
    num_samples: Annotated[tuple[int, ...], AT_LEAST_1, optional("[INT ...]")] = ()
    """Numbers of samples for each image. By default the run's own."""
    num_replicates: NumReplicates = 1000
    """Draws of the gradient, a multiple of 10."""
    seed: Seed = 0
    out: Out = Path("vae-jax-gradient-noise")
    debug: Debug = False

    def run(self) -> None:
        """Measures, prints and saves.

        Raises:
            Misuse: the folder holds no run, or an argument is refused.
        """
        check_options(self)
        start_jax("float32", num_cpu_devices=1)
        from vae_jax import plotting

        folder, trained = opened_model(self.model)
        experiment = trained.experiment
        images = images_of_run(folder, experiment, data=self.data, data_dir=self.data_dir)
        own = experiment.objective
        estimators, num_samples = self.estimators or (own.estimator,), self.num_samples or (own.num_samples,)
        settings = settings_of(replace(self, estimators=estimators, num_samples=num_samples))
        batch_size = experiment.training.batch_size
        about = {"run": self.model.run, "environment": environment("float32", self.seed), "batch_size": batch_size}
        with staged(self.out) as stage, shown_steps() as on_progress:
            rows = _measured(trained, images, settings, on_progress)
            save_table(stage, "gradient_noise", rows, about)
            save_config(stage, "gradient-noise", settings, positional=("run",))
            save_figure(stage, "signal_to_noise", plotting.signal_to_noise_by_layer(drawn_rows(rows)))
        _print(rows, batch_size, self.out)


def _measured(
    trained: "TrainedModel",
    images: "ImageData",
    settings: Mapping[str, Any],
    on_progress: Callable[[str, float | None], None],
) -> list[dict[str, Any]]:
    """A row for each layer, number of samples and estimator."""
    import jax

    from vae_jax.vae.data.visible_images import training_images
    from vae_jax.vae.results.gradient_noise import noise_by_layer, training_loss
    from vae_jax.vae.training.experiment_checks import check_experiment
    from vae_jax.vae.training.training_loop import current_weights

    experiment = trained.experiment
    pixels = jax.device_put(training_images(experiment, images.train))
    steps_per_epoch = experiment.training.steps_per_epoch(len(pixels))
    weights = current_weights(experiment, trained.learned, trained.step, steps_per_epoch)
    rows = []
    for estimator in settings["estimators"]:
        for size in settings["num_samples"]:
            objective = replace(experiment.objective, estimator=estimator, num_samples=size)
            measured = replace(experiment, objective=objective)
            with refusals_are_misuse():
                check_experiment(measured)
                layers = noise_by_layer(
                    training_loss(measured, trained.architecture, pixels, weights),
                    trained.params,
                    jax.random.key(settings["seed"]),
                    settings["num_replicates"],
                    on_progress=partial(on_progress, f"{estimator}, {size:,} samples"),
                )
            rows += [{"estimator": estimator, "num_samples": size} | asdict(layer) for layer in layers]
    return rows


def drawn_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the layers that have noise, and so a ratio to draw, by every estimator."""
    without = {row["layer"] for row in rows if not math.isfinite(row["signal_to_noise"])}
    return [row for row in rows if row["layer"] not in without]


def _print(rows: Sequence[dict[str, Any]], batch_size: int, out: Path) -> None:
    from rich.console import Console

    from vae_jax.cli.terminal_tables import add_numbers, add_words, plain_table, print_saved

    console = Console(highlight=False)
    for estimator, size in dict.fromkeys((row["estimator"], row["num_samples"]) for row in rows):
        table = plain_table(f"gradient by {estimator}, {size:,} sample{'s' * (size > 1)} an image")
        add_words(table, "layer")
        add_numbers(table, "parameters", "signal ± se", "noise ± se", "signal / noise")
        for row in rows:
            if (row["estimator"], row["num_samples"]) == (estimator, size):
                figures = (shown_figure(row, name) for name in ("signal", "noise", "signal_to_noise"))
                table.add_row(row["layer"].replace(".layers", ""), f"{row['num_parameters']:,}", *figures)
        console.print(table)
    console.print(
        f"Signal is the length of the mean gradient, noise the root of the summed variances over batches of "
        f"{batch_size} and their draws, by {rows[0]['num_replicates']:,} replicates.",
        markup=False,
    )
    print_saved(console, out, *SAVED)


def shown_figure(row: Mapping[str, Any], name: str) -> str:
    """A number of a row with its error, `<` where it is an upper bound, or "undefined"."""
    from vae_jax.cli.number_formats import with_error

    if math.isnan(row[name]):
        return "undefined"
    error = row[f"{name}_se"]
    return f"< {row[name]:.2g}" if error is None else with_error(row[name], error)
