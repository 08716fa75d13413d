"""`vae-jax plot`: the figures of a run, or of several side by side."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vae_jax.cli.misuse import Misuse
from vae_jax.cli.opened_runs import can_be_drawn, images_of_run, images_seen, opened_model, warn
from vae_jax.cli.options import Checkpoint, Data, DataDir, Debug, ModelOptions, ModelSeed, check_options, optional
from vae_jax.cli.output_folder import save_figure, staged
from vae_jax.files import require_plain_folder
from vae_jax.runtime import start_jax
from vae_jax.vae.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from vae_jax.vae.data.image_data import ImageData
    from vae_jax.vae.results.trained_model import TrainedModel

SEED = 0
"""Seed of the samples: a figure drawn again is the same."""

NUM_RECONSTRUCTED = 8
NUM_SAMPLES = 64
NUM_SCATTERED = 10_000
NUM_PER_SIDE = 20
NUM_PATHS, NUM_STEPS = 4, 12

FEW_LATENTS = 5
"""Up to so many, the first two latents themselves are shown rather than their principal components."""


OUT_HELP = "Folder for the figures. By default the folder figures of the run or, for several runs, vae-jax-plot."


@dataclass(frozen=True)
class PlotCommand:
    """Draws the figures of a training run, or compares several runs in one set of figures.

    For one run: training curves, prior samples, reconstructions, latents by class, KL by latent, paths between images
    and, with 2 latents, the manifold. For several: curves, reconstructions of the same test images, and KL by rank.
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], optional("FOLDERS")]
    """One or more folders of training runs. (required)"""
    checkpoint: Checkpoint = "best"
    model_seed: ModelSeed = 0
    data: Data = None
    data_dir: DataDir = None
    out: Annotated[Path | None, optional("PATH", OUT_HELP)] = None
    debug: Debug = False

    def run(self) -> None:
        """Draws and saves.

        Raises:
            Misuse: a folder holds no run, or an argument is refused.
        """
        check_options(self)
        if not self.folders:
            raise Misuse("FOLDERS must be folders of runs, got none: name one or more")
        start_jax("float32", num_cpu_devices=1)
        opened = [opened_model(ModelOptions(path, self.checkpoint, self.model_seed)) for path in self.folders]
        folder, trained = opened[0]
        images = images_of_run(folder, trained.experiment, data=self.data, data_dir=self.data_dir)
        if len(opened) == 1:
            out = self.out or _figures(folder)
            saved = _save(out, figures_of_run(folder, trained, images))
        else:
            out = self.out or Path("vae-jax-plot")
            saved = _save(out, _figures_of_runs(_named(opened), images))
        print(f"Saved in {out}: {', '.join(saved)}")


def save_figures(folder: RunFolder, trained: "TrainedModel", images: "ImageData") -> list[str]:
    """Draws all of a run into its folder of figures, and returns their names.

    Args:
        folder: of the run.
        trained: of one seed or of several, of which the first is drawn.
        images: that it was trained on.
    """
    return _save(_figures(folder), figures_of_run(folder, trained.of_seed(0), images))


def _figures(folder: RunFolder) -> Path:
    """The folder of a run's figures, which does not lead out of the run."""
    require_plain_folder(folder.figures)
    return folder.figures


def _save(out: Path, figures: Iterator[tuple[str, "Figure"]]) -> list[str]:
    saved = []
    with staged(out) as stage:
        for name, figure in figures:
            save_figure(stage, name, figure)
            saved.append(name)
    return saved


def figures_of_run(folder: RunFolder, trained: "TrainedModel", images: "ImageData") -> Iterator[tuple[str, "Figure"]]:
    """Every figure that the model and its images allow, by name."""
    from vae_jax import plotting

    rows = folder.rows()
    if rows:
        yield "curves", plotting.training_curves({_name(folder): rows})
    if can_be_drawn(trained.shape):
        yield from _pictures(trained, images)
    test = images_seen(trained, images, "test", needed=0)
    if len(test) > 1:
        if trained.experiment.model.latent_size > 1:
            yield "latents", _scatter(trained, test[:NUM_SCATTERED], images.test.labels)
        yield "kl_by_latent", _kl_by_latent(trained, test)


def _pictures(trained: "TrainedModel", images: "ImageData") -> Iterator[tuple[str, "Figure"]]:
    import jax
    import numpy as np

    from vae_jax import plotting
    from vae_jax.vae.results import generation

    samples = generation.sample_images(trained, jax.random.key(SEED), NUM_SAMPLES)
    yield "samples", plotting.image_grid(np.asarray(samples.images))
    if generation.has_manifold(trained):
        yield "manifold", plotting.manifold(np.asarray(generation.decode_manifold(trained, NUM_PER_SIDE)))
    test = images_seen(trained, images, "test", needed=0)
    if len(test):
        some = test[:NUM_RECONSTRUCTED]
        originals = generation.on_unit_scale(some, trained.shape)
        reconstructed = np.asarray(generation.reconstruct_images(trained, some))
        yield "reconstructions", plotting.reconstructions(originals, {"reconstruction": reconstructed})
    first, second = ends_of_paths(images.test.labels, len(test))
    if first:
        paths = generation.interpolate(trained, test[first], test[second], NUM_STEPS)
        yield "interpolation", plotting.interpolation(np.asarray(paths))


def ends_of_paths(labels: "np.ndarray | None", num_images: int) -> tuple[list[int], list[int]]:
    """Places of the first pairs of images, of two classes each where there are labels; no image is in two pairs."""
    first, second, unpaired = [], [], list(range(num_images))
    while unpaired and len(first) < NUM_PATHS:
        begin = unpaired.pop(0)
        end = next((place for place in unpaired if labels is None or labels[place] != labels[begin]), None)
        if end is None:
            break
        unpaired.remove(end)
        first.append(begin)
        second.append(end)
    return first, second


def _scatter(trained: "TrainedModel", test: "np.ndarray", labels: "np.ndarray | None") -> "Figure":
    import jax
    import numpy as np

    from vae_jax import plotting
    from vae_jax.vae.results.generation import encode_images

    means = np.asarray(encode_images(trained, test, jax.random.key(SEED)).means)
    projection = "first_two" if means.shape[1] <= FEW_LATENTS else "pca"
    return plotting.latent_scatter(means, None if labels is None else labels[: len(test)], projection=projection)


def _kl_by_latent(trained: "TrainedModel", test: "np.ndarray") -> "Figure":
    import jax

    from vae_jax import plotting
    from vae_jax.vae.results.score_summary import scores_of
    from vae_jax.vae.training.image_scores import ACTIVE_VARIANCE

    scores = scores_of(trained, test, jax.random.key(SEED))
    return plotting.kl_by_latent(
        scores.kl_by_latent,
        kl_se=scores.kl_by_latent_se,
        variance_of_means=scores.variance_of_means,
        threshold=ACTIVE_VARIANCE,
        layers=trained.experiment.model.layers,
    )


def _named(opened: list[tuple[RunFolder, "TrainedModel"]]) -> dict[str, tuple[RunFolder, "TrainedModel"]]:
    """Runs by the names of their folders, or by their paths where two have one name.

    Raises:
        Misuse: a run that is there twice.
    """
    names = [_name(folder) for folder, _ in opened]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder, _ in opened]
    if len({folder.path.resolve() for folder, _ in opened}) < len(names):
        raise Misuse(f"FOLDERS must be of different runs, got {' '.join(names)}: name each once")
    return dict(zip(names, opened, strict=True))


def _name(folder: RunFolder) -> str:
    return folder.path.resolve().name


def _figures_of_runs(
    runs: dict[str, tuple[RunFolder, "TrainedModel"]], images: "ImageData"
) -> Iterator[tuple[str, "Figure"]]:
    """The figures that compare runs, by name."""
    import jax
    import numpy as np

    from vae_jax import plotting
    from vae_jax.vae.results.score_summary import scores_of

    for folder, _ in list(runs.values())[1:]:
        if folder.read_config()["images"]["checksum"] != images.checksum:
            warn(f"the images from {images.source} are not those that {folder.path} was trained on")
    rows = {name: rows for name, (folder, _) in runs.items() if (rows := folder.rows())}
    if rows:
        yield "curves", plotting.training_curves(rows)
    seen = {name: images_seen(trained, images, "test", needed=0) for name, (_, trained) in runs.items()}
    models = {name: trained for name, (_, trained) in runs.items()}
    if len(images.test.images) and can_be_drawn(images.shape):
        yield "reconstructions", _reconstructions_of_runs(models, seen, images)
    if len(images.test.images) > 1:
        kl = {
            name: np.asarray(scores_of(trained, seen[name], jax.random.key(SEED)).kl_by_latent)
            for name, trained in models.items()
        }
        layers = {name: trained.experiment.model.layers for name, trained in models.items()}
        yield "kl_by_rank", plotting.kl_by_rank(kl, layers=layers)


def _reconstructions_of_runs(
    models: dict[str, "TrainedModel"], seen: "dict[str, np.ndarray]", images: "ImageData"
) -> "Figure":
    """Reconstructions of what each model sees of the same images. Where that differs, the originals are grey."""
    import numpy as np

    from vae_jax import plotting
    from vae_jax.vae.results.generation import on_unit_scale, reconstruct_images

    some = {name: test[:NUM_RECONSTRUCTED] for name, test in seen.items()}
    grey = images.test.images[:NUM_RECONSTRUCTED].reshape(-1, next(iter(seen.values())).shape[1])
    first, *others = some.values()
    originals = first if all(np.array_equal(first, other) for other in others) else grey
    return plotting.reconstructions(
        on_unit_scale(originals, images.shape),
        {name: np.asarray(reconstruct_images(trained, some[name])) for name, trained in models.items()},
    )
