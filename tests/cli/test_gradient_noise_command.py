import csv
import json
import math
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from commands import run_command
from vae_jax.cli.gradient_noise import drawn_rows, shown_figure
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.data.visible_images import training_images
from vae_jax.vae.results.gradient_noise import noise_by_layer, training_loss
from vae_jax.vae.results.trained_model import load_trained
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.training.objectives import DivergenceWeights


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


SMALL = ["--data", "digits", "--hidden-sizes", "16", "--latent-size", "3", "--batch-size", "100", "--num-epochs", "1"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run of an epoch, the weight of whose KL grows from 0 to the 1 that it has at the end."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vae_jax.cli.plot.save_figures", lambda *_, **__: None)
        process = run_command("train", *SMALL, "--beta-schedule", "linear", "--out", "run", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def measured(run_folder, monkeypatch, tmp_path):
    """The command in the folder that holds the run: exit code, standard output and error, and the folder of results."""
    monkeypatch.chdir(run_folder)

    def call(arguments):
        out = tmp_path / "out"
        process = run_command("gradient-noise", "--out", out, *shlex.split(arguments), cwd=run_folder)
        return process.returncode, process.stdout, process.stderr, out

    return call


def test_the_command_prints_and_saves_signal_and_noise_by_layer(measured, run_folder):
    code, output, errors, out = measured("run --num-replicates 40 --seed 3")
    assert code == 0, errors
    names = {"gradient_noise.json", "gradient_noise.csv", "signal_to_noise.png", "signal_to_noise.pdf", "config.json"}
    assert {path.name for path in out.iterdir()} == names
    line = (
        "vae-jax gradient-noise run --checkpoint best --model-seed 0 --estimators pathwise --num-samples 1 "
        "--num-replicates 40 --seed 3"
    )
    assert json.loads((out / "config.json").read_text())["command_line"] == line
    assert max(map(len, output.splitlines())) <= 80
    content = json.loads((out / "gradient_noise.json").read_text())
    assert (content["run"], content["batch_size"], content["environment"]["seed"]) == ("run", 100, 3)
    rows = content["rows"]
    # 64 pixels, 16 hidden units, 3 latents.
    sizes = {"encoder.loc_head": 16 * 3 + 3, "encoder.scale_head": 16 * 3 + 3, "decoder.head": 16 * 64 + 64}
    found = {row["layer"]: row for row in rows}
    assert {name: found[name]["num_parameters"] for name in sizes} == sizes
    assert rows[-1]["layer"] == "all"
    assert rows[-1]["num_parameters"] == sum(row["num_parameters"] for row in rows[:-1])
    # A model after one epoch is still far from where its gradient is zero.
    assert found["decoder.head"]["resolved"]
    with (out / "gradient_noise.csv").open() as file:
        saved = list(csv.DictReader(file))
    assert [float(row["noise"]) for row in saved] == [row["noise"] for row in rows]
    for row in rows:
        assert (row["estimator"], row["num_samples"], row["num_replicates"]) == ("pathwise", 1, 40)
        assert (row["signal_se"] is None) == (row["signal_to_noise_se"] is None) == (not row["resolved"])
        (line,) = re.findall(
            rf"^{re.escape(row['layer'].replace('.layers', ''))} +{row['num_parameters']:,} .*$", output, re.M
        )
        assert line.count("±") == (3 if row["resolved"] else 1)
        assert line.count("<") == (0 if row["resolved"] else 2)
    assert "gradient by pathwise, 1 sample an image" in output
    assert "batches of 100" in output.replace("\n", " ")
    assert "40 replicates" in output.replace("\n", " ")


@pytest.mark.slow
def test_the_numbers_of_the_command_are_of_the_run_s_best_model(measured):
    _, _, _, out = measured("run --num-replicates 20 --seed 3")
    rows = json.loads((out / "gradient_noise.json").read_text())["rows"]
    trained = load_trained(RunFolder(Path("run")), on_damage=pytest.fail)
    pixels = jnp.asarray(training_images(trained.experiment, load_images("digits").train))
    weights = DivergenceWeights(jnp.float32(1.0), jnp.float32(0.5))
    loss = training_loss(trained.experiment, trained.architecture, pixels, weights)
    layers = noise_by_layer(loss, trained.params, jax.random.key(3), 20)
    assert [row["noise"] for row in rows] == [layer.noise for layer in layers]


@pytest.mark.slow
def test_more_estimators_and_samples_are_measured_on_request(measured):
    code, output, errors, out = measured(
        "run --num-replicates 20 --estimators pathwise score_function --num-samples 1 4"
    )
    assert code == 0, errors
    rows = json.loads((out / "gradient_noise.json").read_text())["rows"]
    noise = {(row["estimator"], row["num_samples"]): row["noise"] for row in rows if row["layer"] == "encoder.loc_head"}
    assert set(noise) == {(name, size) for name in ("pathwise", "score_function") for size in (1, 4)}
    assert noise["score_function", 1] > 3 * noise["pathwise", 1]
    assert noise["score_function", 4] < noise["score_function", 1]
    assert "gradient by score_function, 4 samples an image" in output
    assert max(map(len, output.splitlines())) <= 80


REFUSED = {
    "missing": "missing must be the folder of a run, got one without config.json: train it first",
    "run --num-replicates 15": "--num-replicates must be a multiple of 10 from 20, got 15: round it",
    "run --estimators another --num-replicates 20": "estimator must be .*, got '?another",
    "run --num-samples 0 --num-replicates 20": "--num-samples must be at least 1, got .*0",
    "run --num-samples 1 --estimators score_function+leave_one_out": "needs at least 2 samples, got 1: raise",
    "run --seed -1": "--seed must be from 0 to 4,294,967,295, got -1",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_measured_is_refused_in_one_line_and_leaves_nothing(arguments, measured):
    code, output, errors, out = measured(arguments)
    assert code == 2
    assert re.search(f"^vae-jax: error: .*{REFUSED[arguments]}", errors.splitlines()[-1])
    assert output == ""
    assert not out.exists()


def test_a_layer_without_noise_is_printed_and_left_out_of_the_figure():
    rows = [
        {"layer": "dead", "signal_to_noise": math.nan, "signal_to_noise_se": math.nan},
        {"layer": "alive", "signal_to_noise": 0.5, "signal_to_noise_se": 0.1},
    ]
    assert [row["layer"] for row in drawn_rows(rows)] == ["alive"]
    assert [shown_figure(row, "signal_to_noise") for row in rows] == ["undefined", "0.50 ± 0.10"]
    assert shown_figure({"signal": 0.25, "signal_se": None}, "signal") == "< 0.25"
