import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from commands import run_command
from vae_jax.cli.plot import ends_of_paths, figures_of_run, save_figures
from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.data.binarization import prepared
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.data.image_data import ImageData, Split
from vae_jax.vae.data.visible_images import training_images
from vae_jax.vae.models.architecture import Architecture
from vae_jax.vae.results.generation import encode_images, reconstruct_images, sample_images
from vae_jax.vae.results.trained_model import TrainedModel, load_trained
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.runs.training_run import Run
from vae_jax.vae.training.many_seeds import seed_keys
from vae_jax.vae.training.training_loop import Learned, init_state

KEY = jax.random.key(0)
DIGITS = DataConfig(data="digits")
TRAINING = TrainingConfig(num_epochs=2, batch_size=100)
FLAT = Experiment(DIGITS, ModelConfig(latent_size=2, hidden_sizes=(16,)), training=TRAINING)
LAYERS = ModelConfig("hierarchical", 4, (16,), top_latent_size=3, top_hidden_sizes=(5,), likelihood="gaussian")
SAMPLED = ObjectiveConfig(kl="sampled")
TWO_LAYERS = replace(FLAT, model=LAYERS, objective=SAMPLED, data=replace(DIGITS, binarization="none"), num_seeds=2)
RUN_OF_ONE = ["curves", "samples", "manifold", "reconstructions", "interpolation", "latents", "kl_by_latent"]


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits):
    """The folder of two runs, the second of two layers and two seeds, and of one that has not saved anything."""
    parent = tmp_path_factory.mktemp("runs")
    begin(parent / "begun", FLAT, digits)
    run = Run(FLAT, digits, begin(parent / "one", FLAT, digits))
    run.train(run.start())
    folder = begin(parent / "two", TWO_LAYERS, digits)
    for epoch in (1, 2):
        folder.append_row({"epoch": epoch, "train_elbo": [-30.0, -31.0], "validation_elbo": [-32.0, -33.0]})
    Checkpoints(folder.checkpoints).save(22, state(TWO_LAYERS, digits, seed=0), score=-32.5)
    return parent


def begin(path, experiment, digits):
    folder = RunFolder(path)
    folder.write_config(experiment, {"images": facts(digits)})
    return folder


def state(experiment, digits, seed):
    pixels = training_images(experiment, digits.train)
    return init_state(experiment, pixels, digits.shape, seed_keys(jax.random.key(seed), experiment.num_seeds))


def facts(images):
    return {
        "name": images.name,
        "source": images.source,
        "checksum": images.checksum,
        "shape": images.shape,
        "num_train": len(images.train.images),
    }


def model(folder, seed=0, which="best"):
    return load_trained(RunFolder(folder), which=which, on_damage=pytest.fail).of_seed(seed)


def seen(digits, split):
    """The fixed draw of them that a model sees under stochastic binarization."""
    numbers = {"train": 0, "validation": 1, "test": 2}
    return prepared(getattr(digits, split).images, "fixed", 0, stream=numbers[split])


def done(*arguments):
    """A command that must succeed. All of its paths are absolute."""
    process = run_command(*arguments, cwd=Path.cwd())
    assert process.returncode == 0, process.stderr
    return process


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_drawn(folder, names):
    assert files(folder) == sorted(f"{name}.{kind}" for name in names for kind in ("pdf", "png"))
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_samples_are_saved_with_their_latents(runs, tmp_path):
    process = done("sample", runs / "one", "--num-images", 9, "--seed", 5, "--out", tmp_path / "o")
    assert files(tmp_path / "o") == ["samples.npz", "samples.pdf", "samples.png"]
    assert "samples.npz, samples.pdf, samples.png" in process.stdout
    with np.load(tmp_path / "o/samples.npz") as saved:
        expected = sample_images(model(runs / "one"), jax.random.key(5), 9)
        assert set(saved) == {"images", "latents"}
        assert saved["images"].dtype == np.float32
        np.testing.assert_array_equal(saved["images"], expected.images)
        np.testing.assert_array_equal(saved["latents"], expected.latents)


def test_sampled_pixels_are_binary_and_mean_ones_are_not(runs, tmp_path):
    for pixels in ("mean", "sampled"):
        done("sample", runs / "one", "--num-images", 3, "--pixels", pixels, "--out", tmp_path / pixels)
    means, drawn = (np.load(tmp_path / pixels / "samples.npz") for pixels in ("mean", "sampled"))
    np.testing.assert_array_equal(means["latents"], drawn["latents"])
    assert set(np.unique(drawn["images"])) == {0.0, 1.0}
    assert len(np.unique(means["images"])) > 50


def test_each_seed_s_model_and_both_layers_can_be_had(runs, tmp_path):
    for seed in (0, 1):
        done("sample", runs / "two", "--model-seed", seed, "--num-images", 3, "--out", tmp_path / f"{seed}")
        with np.load(tmp_path / f"{seed}/samples.npz") as saved:
            images, latents = sample_images(model(runs / "two", seed), KEY, 3)
            np.testing.assert_array_equal(saved["images"], images)
            np.testing.assert_array_equal(saved["latents"], latents.lower)
            np.testing.assert_array_equal(saved["upper_latents"], latents.upper)


def test_the_latest_checkpoint_can_be_had(tmp_path, digits):
    folder = begin(tmp_path / "run", FLAT, digits)
    for step, score in ((11, -20.0), (22, -30.0)):
        Checkpoints(folder.checkpoints).save(step, state(FLAT, digits, seed=step), score=score)
    models = {which: model(folder.path, which=which) for which in ("best", "latest")}
    assert {which: trained.step for which, trained in models.items()} == {"best": 11, "latest": 22}
    for which, trained in models.items():
        done("sample", folder.path, "--checkpoint", which, "--num-images", 2, "--out", tmp_path / which)
        with np.load(tmp_path / which / "samples.npz") as saved:
            np.testing.assert_array_equal(saved["images"], sample_images(trained, KEY, 2).images)


@pytest.mark.parametrize("split", ["test", "train"])
def test_reconstructions_are_saved_beside_what_the_model_sees(runs, tmp_path, digits, split):
    done("reconstruct", runs / "one", "--split", split, "--num-images", 20, "--out", tmp_path / "o")
    assert files(tmp_path / "o") == ["reconstructions.npz", "reconstructions.pdf", "reconstructions.png"]
    given = seen(digits, split)[:20]
    with np.load(tmp_path / "o/reconstructions.npz") as saved:
        np.testing.assert_array_equal(saved["originals"], given.reshape(-1, 8, 8) / np.float32(255))
        np.testing.assert_array_equal(saved["reconstructions"], reconstruct_images(model(runs / "one"), given))
        np.testing.assert_array_equal(saved["labels"], getattr(digits, split).labels[:20])


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_codes_are_saved_in_the_very_file_named(runs, tmp_path, digits, split):
    done("encode", runs / "one", "--split", split, "--out", tmp_path / "codes")
    assert files(tmp_path) == ["codes"]
    expected = encode_images(model(runs / "one"), seen(digits, split), KEY)
    with np.load(tmp_path / "codes") as saved:
        assert set(saved) == {"means", "scales", "labels"}
        np.testing.assert_array_equal(saved["means"], expected.means)
        np.testing.assert_array_equal(saved["scales"], expected.scales)
        np.testing.assert_array_equal(saved["labels"], getattr(digits, split).labels)


def test_codes_of_two_layers_replace_what_was_there(runs, tmp_path, digits):
    (tmp_path / "z.npz").write_text("old")
    done("encode", runs / "two", "--model-seed", 1, "--seed", 7, "--out", tmp_path / "z.npz")
    images = digits.test.images.reshape(len(digits.test.images), -1)
    expected = encode_images(model(runs / "two", 1), images, jax.random.key(7))
    with np.load(tmp_path / "z.npz") as saved:
        for name in ("means", "scales", "upper_means"):
            np.testing.assert_array_equal(saved[name], getattr(expected, name))


def test_images_from_elsewhere_are_used_with_a_warning(runs, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    arguments = ("encode", runs / "one", "--split", "train", "--out", tmp_path / "z.npz", "--data", tmp_path / "x.npy")
    warnings = [line for line in done(*arguments).stderr.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "x.npy" in warnings[0]
    assert f"not those that {runs / 'one'} was trained on" in warnings[0]
    with np.load(tmp_path / "z.npz") as saved:
        assert set(saved) == {"means", "scales"}
        assert 40 <= len(saved["means"]) < 60


def test_a_run_s_figures_are_drawn_into_its_folder(runs, digits):
    trained = load_trained(RunFolder(runs / "one"), on_damage=pytest.fail)
    assert save_figures(RunFolder(runs / "one"), trained, digits) == RUN_OF_ONE
    assert_drawn(runs / "one/figures", RUN_OF_ONE)


@pytest.mark.slow
def test_several_runs_are_drawn_together(runs, tmp_path):
    done("plot", runs / "one", runs / "two", "--out", tmp_path / "o")
    assert_drawn(tmp_path / "o", ["curves", "reconstructions", "kl_by_rank"])


def untrained(shape, latent_size):
    config = ModelConfig(latent_size=latent_size, hidden_sizes=(4,))
    return TrainedModel(Experiment(model=config), shape, 0, Learned(Architecture(config, shape).init(KEY), None))


def some_images(shape, num_test, labels=None):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    splits = (Split(images[:number], None) for number in (20, 0))
    return ImageData("some", *splits, Split(images[:num_test], labels), None, "here")


@pytest.mark.parametrize(
    ("shape", "latent_size", "num_test", "names"),
    [
        ((9,), 3, 20, ["latents", "kl_by_latent"]),
        ((3, 3), 1, 20, ["samples", "reconstructions", "interpolation", "kl_by_latent"]),
        ((3, 3, 3), 2, 20, ["samples", "manifold", "reconstructions", "interpolation", "latents", "kl_by_latent"]),
        ((3, 3), 2, 1, ["samples", "manifold", "reconstructions"]),
        ((3, 3), 2, 0, ["samples", "manifold"]),
    ],
)
def test_what_cannot_be_drawn_is_left_out(tmp_path, shape, latent_size, num_test, names):
    figures = figures_of_run(RunFolder(tmp_path), untrained(shape, latent_size), some_images(shape, num_test))
    assert [name for name, _ in figures] == names


def test_paths_are_between_two_classes_and_no_image_is_in_two():
    assert ends_of_paths(np.array([4, 4, 1, 4, 4, 2, 3, 1, 0, 0, 5]), 11) == ([0, 1, 3, 4], [2, 5, 6, 7])
    assert ends_of_paths(np.array([4, 4, 1, 4]), 4) == ([0], [2])
    assert ends_of_paths(None, 5) == ([0, 2], [1, 3])


def test_a_path_in_the_figure_begins_with_an_image_and_ends_with_one_of_another_class(tmp_path):
    labels = np.array([0, 0, 1, 1], np.int32)
    images = some_images((3, 3), 4, labels)
    figure = dict(figures_of_run(RunFolder(tmp_path), untrained((3, 3), 1), images))["interpolation"]
    tiles = [tile.get_array() for tile in figure.axes[0].images]
    assert len(tiles) == 2 * 12
    fixed = prepared(images.test.images, "fixed", 0, stream=2).reshape(-1, 3, 3) / 255
    for tile, number in ((0, 0), (11, 2), (12, 1), (23, 3)):
        np.testing.assert_allclose(tiles[tile], fixed[number])


MISUSES = {
    "must be the folder of a run, got one without config.json": ("sample", "nothing"),
    "--num-images must be at least 1, got 0": ("sample", "one", "--num-images", 0),
    "--seed must be from 0": ("sample", "one", "--seed", -1),
    "--model-seed must be from 0 to 0, got 1": ("sample", "one", "--model-seed", 1),
    "--model-seed must be at least 0, got -1": ("encode", "two", "--model-seed", -1, "--out", "o"),
    "--num-images must be at least 1, got -3": ("reconstruct", "one", "--num-images", -3),
    "--split must have at least 5000 images, got test with 299": ("reconstruct", "one", "--num-images", 5000),
    "--out must be a file in a folder that exists, got nowhere/z.npz": ("encode", "one", "--out", "nowhere/z.npz"),
    "--out must be a file that can be written, got .": ("encode", "one", "--out", "."),
    "that the model sees, got (4, 4)": ("encode", "one", "--data", "small.npy", "--out", "o"),
    "got 'absent', which does not exist": ("reconstruct", "one", "--data", "absent"),
    "FOLDERS must be folders of runs, got none": ("plot",),
    "FOLDERS must be of different runs": ("plot", "one", "one", "--out", "o"),
    "nothing must be the folder of a run": ("plot", "one", "nothing", "--out", "o"),
}


@pytest.mark.parametrize("message", MISUSES)
def test_misuse_is_told_in_one_line_and_nothing_is_written(runs, tmp_path, message):
    np.save(tmp_path / "small.npy", np.zeros((30, 4, 4), np.uint8))
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(runs / name)
    before = files(tmp_path), files(runs / "one")
    process = run_command(*MISUSES[message], cwd=tmp_path)
    assert process.returncode == 2
    last = process.stderr.splitlines()[-1]
    assert last.startswith("vae-jax: error: ")
    assert message in last
    assert (files(tmp_path), files(runs / "one")) == before


@pytest.mark.parametrize("command", ["plot", "sample", "reconstruct", "encode"])
def test_a_run_without_a_checkpoint_fails_in_one_line(runs, tmp_path, command):
    process = run_command(command, runs / "begun", "--out", "o", cwd=tmp_path)
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert "no checkpoint" in line
    assert files(tmp_path) == []
    assert json.loads((runs / "begun/config.json").read_text())
    assert files(runs / "begun") == ["config.json"]
