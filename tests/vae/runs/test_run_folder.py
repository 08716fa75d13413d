"""The files of a run's folder: their schema version, and settings that are read back."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

import sealed_files
from vae_jax.vae.config.experiment import Experiment, ModelConfig
from vae_jax.vae.config.presets import PRESETS
from vae_jax.vae.runs.run_folder import NoRun, RunFolder
from vae_jax.vae.runs.schema_version import SCHEMA_VERSION, OtherSchema, check_schema_version


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write_config(Experiment(), {"preset": "none"})
    return folder


def rewrite(folder, change):
    sealed_files.rewrite(folder.path / "config.json", change)


@pytest.mark.parametrize("name", PRESETS)
def test_an_experiment_is_read_back_as_it_was_written(tmp_path, name):
    folder = RunFolder(tmp_path)
    folder.write_config(PRESETS[name], {"preset": name})
    assert folder.experiment() == PRESETS[name]
    assert folder.read_config()["preset"] == name
    assert folder.read_config()["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "none, as from before there were any: train anew, or use the version of vae_jax that wrote it"),
        (SCHEMA_VERSION - 1, f"{SCHEMA_VERSION - 1}: train anew, or use the version of vae_jax that wrote it"),
        (SCHEMA_VERSION + 1, f"{SCHEMA_VERSION + 1}: update vae_jax"),
        ("1.0", "1.0: train anew, or use the version of vae_jax that wrote it"),
        (True, "True: train anew, or use the version of vae_jax that wrote it"),
    ],
)
def test_a_folder_of_another_version_is_refused_in_one_line(folder, found, said):
    def change(content):
        content["schema_version"] = found
        if found is None:
            del content["schema_version"]

    rewrite(folder, change)
    file = folder.path / "config.json"
    expected = f"{file} must have schema_version {SCHEMA_VERSION}, which this version of vae_jax reads, got {said}"
    for read in (folder.read_config, folder.experiment):
        with pytest.raises(OtherSchema, match=f"^{re.escape(expected)}$"):
            read()


def test_the_version_that_is_written_is_read(tmp_path):
    check_schema_version({"schema_version": SCHEMA_VERSION}, tmp_path)


def rewritten(folder, section, **settings):
    """A setting of a section, or of the experiment itself, set to a value; without a value, removed."""

    def change(content):
        part = content["experiment"][section] if section else content["experiment"]
        for name, value in settings.items():
            part[name] = value
            if value is ...:
                del part[name]

    rewrite(folder, change)


UNREADABLE = {
    "no batch_size": ("training", {"batch_size": ...}),
    "no seed": (None, {"seed": ...}),
    "'model'": (None, {"model": ...}),
    "unexpected keyword argument 'depth'": ("model", {"depth": 3}),
    "latent_size must be int, got '3'": ("model", {"latent_size": "3"}),
    "latent_size must be int, got 2.5": ("model", {"latent_size": 2.5}),
    "latent_size must be at least 1, got 0": ("model", {"latent_size": 0}),
    "network must be mlp, convolutional or hierarchical, got 'cnn'": ("model", {"network": "cnn"}),
    "hidden_sizes must be tuple[int, ...], got 3": ("model", {"hidden_sizes": 3}),
    "learning_rate must be float, got None": ("training", {"learning_rate": None}),
    "seed must be int, got True": (None, {"seed": True}),
}

READ = """
import sys
from pathlib import Path
from vae_jax.vae.runs.run_folder import NoRun, RunFolder
for folder in sys.argv[1:]:
    try: RunFolder(Path(folder)).experiment()
    except NoRun as error: print(error)
assert "jax" not in sys.modules
"""


def test_settings_that_cannot_be_read_are_named(tmp_path):
    """In a process of its own: the tests' own checks of types would stop wrong values first."""
    folders = [RunFolder(tmp_path / str(number)) for number in range(len(UNREADABLE))]
    for folder, (section, settings) in zip(folders, UNREADABLE.values(), strict=True):
        folder.write_config(Experiment(), {})
        rewritten(folder, section, **settings)
    command = [sys.executable, "-c", READ, *(str(folder.path) for folder in folders)]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    for folder, said, line in zip(folders, UNREADABLE, lines, strict=True):
        assert line.startswith(f"{folder.path / 'config.json'} must hold the settings of a run, got others: ")
        assert said in line
        assert line.endswith(": train anew")


def test_what_is_no_experiment_is_refused(folder):
    rewrite(folder, lambda content: content.update(experiment=[]))
    with pytest.raises(NoRun, match="must hold the settings of a run, got others"):
        folder.experiment()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "got one without config.json: train"),
        ("{", "must be JSON, got "),
        ("[]", "config.json must be a JSON object, got list: restore the file, or train anew"),
        ("\xff", "config.json must be JSON, got "),
    ],
)
def test_a_folder_without_a_run_is_refused(folder, content, said):
    (folder.path / "config.json").unlink()
    if content is not None:
        (folder.path / "config.json").write_bytes(content.encode("latin-1"))
    assert folder.is_run == (content is not None)
    with pytest.raises(NoRun, match=re.escape(said)):
        folder.read_config()


@pytest.mark.parametrize("facts", [None, [], {"checksum": "0", "shape": [2]}])
def test_a_run_without_the_facts_of_its_images_is_refused(folder, facts):
    rewrite(folder, lambda content: content.update(images=facts))
    with pytest.raises(NoRun, match=r"config\.json must have the facts of the images, got .*: train anew"):
        folder.image_facts()
    rewrite(folder, lambda content: content.update(images={"checksum": "0", "shape": [2], "num_train": 3}))
    assert folder.image_facts()["num_train"] == 3


def test_a_row_that_was_cut_short_is_left_out_and_another_damage_refused(folder):
    folder.append_row({"epoch": 1, "elbo": [1.0, float("nan")]})
    folder.append_row({"epoch": 2, "elbo": [2.0, 3.0]})
    file = folder.path / "metrics.jsonl"
    assert folder.rows() == [{"epoch": 1, "elbo": [1.0, None]}, {"epoch": 2, "elbo": [2.0, 3.0]}]
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert [row["epoch"] for row in folder.rows()] == [1]
    first, second, _ = whole.split(b"\n")
    for damaged, said in {
        b"{\n" + whole: "must be JSON, got .* in line 1",
        b"[1]\n" + whole: "must be a JSON object, got list in line 1",
        b"\xff\n" + whole: "must be JSON, got .* in line 1",
        second + b"\n": "must be as it was written, got another line 1",
        first + b"\n" + first + b"\n": "must be as it was written, got another line 2",
        whole.replace(b"3.0", b"3.1"): "must be as it was written, got another line 2",
        whole.replace(b": 2,", b":  2,"): "must be as it was written, got another line 2",
    }.items():
        file.write_bytes(damaged)
        with pytest.raises(NoRun, match=rf"metrics\.jsonl {said}"):
            folder.rows()


def test_a_tuple_stays_one(tmp_path):
    experiment = replace(Experiment(), model=ModelConfig(hidden_sizes=()))
    folder = RunFolder(tmp_path)
    folder.write_config(experiment, {})
    assert folder.experiment().model.hidden_sizes == ()
    assert json.loads((tmp_path / "config.json").read_text())["experiment"] == json.loads(
        json.dumps(asdict(experiment))
    )
