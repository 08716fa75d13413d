"""A run is read only with the configuration and the metrics that its checkpoints were saved with."""

import copy
import shutil

import jax
import numpy as np
import pytest

from sealed_files import rewrite
from vae_jax.files import UnsafePath
from vae_jax.vae.config.experiment import Experiment, ModelConfig, TrainingConfig
from vae_jax.vae.data.image_data import Split, split_images
from vae_jax.vae.results.trained_model import load_trained
from vae_jax.vae.runs import checkpoints
from vae_jax.vae.runs.checkpoints import CheckpointError, Checkpoints
from vae_jax.vae.runs.run_folder import NoRun, RunFolder
from vae_jax.vae.runs.training_run import Run

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 2, 3)).astype(np.uint8)
IMAGES = split_images("random", "random", {"train": Split(PIXELS, None)}, num_validation=20)
EXPERIMENT = Experiment(
    model=ModelConfig(latent_size=2, hidden_sizes=(3,)), training=TrainingConfig(num_epochs=4, batch_size=32)
)


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped after three of four epochs."""
    folder = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    facts = {"checksum": IMAGES.checksum, "shape": IMAGES.shape, "num_train": len(IMAGES.train.images)}
    folder.write_config(EXPERIMENT, {"images": facts})
    run = Run(EXPERIMENT, IMAGES, folder)
    run.train(run.start(), stop_after=3)
    return run


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of it, compiled already."""
    other = copy.copy(stopped)
    other.folder = RunFolder(shutil.copytree(stopped.folder.path, tmp_path / "run"))
    other.checkpoints = Checkpoints(other.folder.checkpoints)
    return other


def read(run):
    """Every way in which a command enters a run."""
    return {
        "resume": lambda: run.resume(pytest.fail),
        "best": lambda: load_trained(run.folder, on_damage=pytest.fail),
        "latest": lambda: load_trained(run.folder, which="latest", on_damage=pytest.fail),
    }


def test_a_whole_run_is_read(run):
    for enter in read(run).values():
        enter()
    run.folder.write_config(
        Experiment(model=EXPERIMENT.model, training=TrainingConfig(num_epochs=9, batch_size=32)),
        {"images": run.folder.image_facts()},
    )
    assert load_trained(run.folder, on_damage=pytest.fail).experiment.training.num_epochs == 9


def lines(run):
    return (run.folder.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)


def lose_the_file(run):
    (run.folder.path / "metrics.jsonl").unlink()


def lose_the_last_epoch(run):
    (run.folder.path / "metrics.jsonl").write_bytes(b"".join(lines(run)[:-1]))


def cut_the_last_epoch(run):
    (run.folder.path / "metrics.jsonl").write_bytes(b"".join(lines(run))[:-5])


def lose_the_first_epoch(run):
    (run.folder.path / "metrics.jsonl").write_bytes(b"".join(lines(run)[1:]))


def change_a_metric(run):
    (run.folder.path / "metrics.jsonl").write_bytes(b"".join(lines(run)).replace(b'"beta": 1.0', b'"beta": 1.5', 1))


def take_another_s(run):
    rows = run.folder.rows()
    rows[0]["train_elbo"] -= 1
    run.folder.keep_rows(rows)


@pytest.mark.parametrize(
    "damage",
    [lose_the_file, lose_the_last_epoch, cut_the_last_epoch, lose_the_first_epoch, change_a_metric, take_another_s],
)
def test_metrics_that_are_not_the_run_s_are_refused(run, damage):
    damage(run)
    for name in ("resume", "latest"):
        with pytest.raises(NoRun, match=r"run/metrics\.jsonl must (hold the 3 epochs|be as it was written)"):
            read(run)[name]()


def test_a_setting_that_was_changed_by_hand_is_refused(run):
    path = run.folder.path / "config.json"
    whole = path.read_text()
    path.write_text(whole.replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    assert path.read_text() != whole
    with pytest.raises(NoRun, match=r"config\.json must be as it was written, .* flags change the settings of a run"):
        run.folder.experiment()


def test_the_configuration_of_another_run_is_refused(run):
    rewrite(
        run.folder.path / "config.json", lambda content: content["experiment"]["training"].update(learning_rate=0.5)
    )
    other = Run(run.folder.experiment(), IMAGES, run.folder)
    for enter in read(other).values():
        with pytest.raises(NoRun, match=r"config\.json must hold the settings that the checkpoint of step \d+ was tra"):
            enter()


def test_settings_that_training_refuses_are_refused_by_every_reader(run):
    change = {"network": "hierarchical", "top_latent_size": 2, "top_hidden_sizes": [3]}
    rewrite(run.folder.path / "config.json", lambda content: content["experiment"]["model"].update(change))
    with pytest.raises(NoRun, match=r"config\.json must hold the settings of a run, got others: kl must be sampled"):
        run.folder.experiment()


def test_a_disk_without_room_is_noticed_before_training(run, monkeypatch):
    monkeypatch.setattr(
        checkpoints, "require_space", lambda folder, size: (_ for _ in ()).throw(OSError(f"the disk, {size}"))
    )
    before = run.folder.rows()
    with pytest.raises(CheckpointError, match=r"checkpoints cannot be saved in .*: make room"):
        run.train(run.resume(pytest.fail))
    assert run.folder.rows() == before


@pytest.mark.parametrize("name", ["checkpoints", "figures"])
def test_no_link_leads_out_of_the_run(run, tmp_path, name):
    from vae_jax.cli.plot import save_figures

    outside = tmp_path / "outside"
    folder = run.folder.path / name
    if folder.exists():
        folder.rename(outside)
    else:
        outside.mkdir()
    folder.symlink_to(outside)
    before = sorted(outside.rglob("*"))
    expected = rf"{name} must be a folder, got a symbolic link"
    write = {
        "figures": lambda: save_figures(run.folder, load_trained(run.folder, on_damage=pytest.fail), IMAGES),
        "checkpoints": lambda: run.train(run.resume(pytest.fail)),
    }
    with pytest.raises((CheckpointError, UnsafePath), match=expected):
        write[name]()
    assert sorted(outside.rglob("*")) == before
