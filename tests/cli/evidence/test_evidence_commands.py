import csv
import json
import re
import shlex

import jax
import numpy as np
import pytest

from commands import refusal, run_command

SMALL = ["--data", "digits", "--hidden-sizes", "16", "--latent-size", "3", "--batch-size", "100", "--num-epochs", "2"]
QUICK = ["--num-samples", "400", "--num-bound-samples", "20", "--num-chains", "40", "--num-temperatures", "12"]
ENDS = ("json", "csv", "png", "pdf")
ESTIMATORS = ("prior_sampling", "importance_sampling", "annealed_importance_sampling", "importance_weighted_bound")


@pytest.fixture(autouse=True, scope="module")
def _without_figures():
    """NumPyro's distributions of vectors promote ranks in drawing; no figures."""
    with jax.numpy_rank_promotion("allow"), pytest.MonkeyPatch.context() as patched:
        patched.setattr("vae_jax.cli.plot.save_figures", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that commands are called in."""
    return tmp_path_factory.mktemp("evidence")


@pytest.fixture
def call(folder):
    """The command: its exit code, standard output and error."""

    def of(*arguments):
        process = run_command(*arguments, cwd=folder)
        return process.returncode, process.stdout, process.stderr

    return of


@pytest.fixture(scope="module")
def run(folder):
    assert run_command("train", *SMALL, "--out", "run", cwd=folder).returncode == 0
    return folder / "run"


def saved(folder, name="evidence"):
    assert {path.name for path in folder.iterdir()} == {"config.json", *(f"{name}.{end}" for end in ENDS)}
    return json.loads((folder / f"{name}.json").read_text())


def test_a_problem_is_printed_and_saved_beside_its_exact_answer(call, folder):
    code, output, errors = call("evidence", "--num-latents", 1, 30, *QUICK, "--out", "problem")
    assert code == 0, errors
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    for word in ("latents", "prior", "importance", "annealing", "lower bound", "unreliable", "-1.828", "Pareto k"):
        assert word in output
    content = saved(folder / "problem")
    assert content["environment"]["seed"] == 0
    assert [(row["num_latents"], row["estimator"]) for row in content["rows"]] == [
        (number, name) for number in (1, 30) for name in ESTIMATORS
    ]
    prior = content["rows"][4]
    assert not prior["reliable"]
    assert prior["pareto_k"] > 0.5
    for row in content["rows"]:
        assert row["error"] == pytest.approx(row["log_evidence"] - row["exact"])
        assert (row["acceptance_rate"] is None) == (row["estimator"] != "annealed_importance_sampling")
        if row["reliable"]:
            assert abs(row["error"]) < 8 * row["log_evidence_se"] + 0.4 * row["is_lower_bound"] + 1e-4
    with (folder / "problem/evidence.csv").open() as file:
        assert [float(row["log_evidence"]) for row in csv.DictReader(file)] == [
            row["log_evidence"] for row in content["rows"]
        ]


@pytest.mark.slow
def test_the_saved_command_line_repeats_the_results(call, folder):
    assert (
        call("evidence", "--problem", "linear-gaussian", "--num-latents", 3, "--seed", 7, *QUICK, "--out", "first")[0]
        == 0
    )
    words = shlex.split(json.loads((folder / "first/config.json").read_text())["command_line"])
    assert words[:2] == ["vae-jax", "evidence"]
    assert call(*words[1:], "--out", "second")[0] == 0
    assert saved(folder / "first")["rows"] == saved(folder / "second")["rows"]


def test_a_trained_model_is_scored_image_by_image(call, folder, run):
    code, output, errors = call("image-evidence", "run", "--num-images", 3, *QUICK, "--out", "images")
    assert code == 0, errors
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    text = " ".join(output.split())
    for word in ("3 test images, binarization stochastic, drawn once with seed 0", "K = 20", "mean", "encoder"):
        assert word in text
    content = saved(folder / "images", "image_evidence")
    assert (content["split"], content["num_bound_samples"], content["binarization"]) == ("test", 20, "stochastic")
    assert len(content["rows"]) == 3 * len(ESTIMATORS)
    values = np.array([row["log_evidence"] for row in content["rows"]]).reshape(3, 4)
    errors = np.array([row["log_evidence_se"] for row in content["rows"]]).reshape(3, 4)
    # Three ways to the same number, and a bound that is close to it.
    for one, other in ((1, 0), (1, 2)):
        difference = np.abs(values[:, one] - values[:, other])
        assert (difference < 7 * np.hypot(errors[:, one], errors[:, other])).all()
    assert (values[:, 3] < values[:, 1] + 7 * np.hypot(errors[:, 1], errors[:, 3])).all()


@pytest.mark.slow
def test_a_run_is_repeated_by_its_saved_command_line(call, folder, run):
    arguments = ("--num-images", 2, "--split", "validation", "--checkpoint", "latest", "--start", "fit", *QUICK)
    assert call("image-evidence", "run", *arguments, "--out", "third")[0] == 0
    words = shlex.split(json.loads((folder / "third/config.json").read_text())["command_line"])
    assert words[:3] == ["vae-jax", "image-evidence", str(run)]
    assert call(*words[1:], "--out", "fourth")[0] == 0
    third, fourth = (saved(folder / name, "image_evidence") for name in ("third", "fourth"))
    assert third["rows"] == fourth["rows"]
    assert third["split"] == "validation"


MISUSES = {
    "evidence --num-latents": "--num-latents must have at least one number, got none",
    "evidence --num-latents 5 0": "--num-latents must be from 1 to 1,000, got .*0",
    "evidence --num-latents 2.5": "--num-latents must be whole numbers, got 2.5",
    "evidence --problem cosine": "--problem must be linear-gaussian, got cosine",
    "evidence --num-samples 10": "--num-samples must be at least twice --num-bound-samples, got 10 and 50",
    "evidence --num-bound-samples 0": "--num-bound-samples must be at least 1, got 0",
    "evidence --num-chains 1": "--num-chains must be at least 2, got 1",
    "evidence --num-temperatures 1": "--num-temperatures must be at least 2, got 1",
    "evidence --num-leapfrog-steps 0": "--num-leapfrog-steps must be at least 1, got 0",
    "evidence --schedule cubic": "--schedule must be one of sigmoid, linear, geometric, got cubic",
    "evidence --seed -1": "--seed must be from 0",
    "evidence --split test": "Unrecognized options: --split",
    "image-evidence": "Missing from vae-jax image-evidence: RUN",
    "image-evidence absent": "absent",
    "image-evidence run --num-latents 5": "Unrecognized options: --num-latents",
    "image-evidence run --num-images 0": "--num-images must be at least 1, got 0",
    "image-evidence run --num-images 100000": "--split must have at least 100000 images",
    "image-evidence run --model-seed 3": "--model-seed must be from 0 to 0, got 3",
}


@pytest.mark.parametrize("arguments", MISUSES)
def test_misuse_ends_with_one_line_and_leaves_nothing(arguments, folder, run):
    process = run_command(*arguments.split(), "--out", "nothing", cwd=folder)
    assert re.search(MISUSES[arguments], refusal(process))
    assert not (folder / "nothing").exists()
