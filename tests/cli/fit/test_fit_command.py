import csv
import json
import re
import shlex
from functools import partial

import pytest

from commands import refusal, run_command

SAVED = {"fit.json", "fit.csv", "history.csv", "fit.png", "fit.pdf", "config.json"}
SHORT = ("--num-steps", 1000, "--window", 250, "--num-restarts", 2)

run = partial(run_command, "fit")


@pytest.fixture(scope="module")
def poisson_gamma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poisson_gamma")
    return folder, run("--out", "results", cwd=folder)


def test_a_problem_prints_and_saves_its_fit(poisson_gamma):
    folder, process = poisson_gamma
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (folder / "results").iterdir()} == SAVED
    assert max(map(len, process.stdout.splitlines())) <= 80
    for word in ("4.8644", "0.9661", "-24.6899", "-0.820", "Why", "converged", "Pareto k", "Saved in results"):
        assert word in process.stdout


def test_the_mean_field_normal_comes_out_at_its_optimum(poisson_gamma):
    folder, _ = poisson_gamma
    content = json.loads((folder / "results/fit.json").read_text())
    parameters = content["fit"]["parameters"]
    for name, optimum in {"loc_u": 4.6463, "scale_u": 0.6628, "loc_v": 0.9116, "scale_v": 0.1314}.items():
        assert parameters[name]["value"] == pytest.approx(optimum, rel=0.01)
        assert 0 < parameters[name]["se"] < 0.02 * optimum
    assert content["fit"]["converged"]
    assert content["fit"]["num_steps"] < 10000
    with (folder / "results/fit.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["latent"] for row in rows] == ["u", "v"]
    assert float(rows[0]["exact_mean"]) == pytest.approx(4.864, abs=1e-3)


@pytest.mark.slow
def test_the_saved_command_line_repeats_the_fit(tmp_path):
    first = run("--problem", "poisson-gamma", "--family", "full_rank", *SHORT, "--out", "results", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    words = shlex.split(json.loads((tmp_path / "results/config.json").read_text())["command_line"])
    assert run(*words[2:], "--out", "again", cwd=tmp_path).returncode == 0
    one, other = (json.loads((tmp_path / f / "fit.json").read_text()) for f in ("results", "again"))
    assert one["rows"] == other["rows"]
    assert one["fit"] == other["fit"]


MISUSES = {
    "--problem square": "--problem must be poisson-gamma, got square",
    "--family other": "--family must be one of normal, log_normal, .*, got other",
    "--response x": "Unrecognized options: --response, x",
    "--estimator other": "estimator must be one of .*, got other",
    "--num-steps 1500": "--num-steps must be a multiple of the window of 1000",
    "--num-steps 0": "--num-steps must be at least 1, got 0",
    "--num-samples 0": "--num-samples must be at least 1, got 0",
    "--learning-rate 0": "--learning-rate must be finite and above 0, got 0",
    "--learning-rate-schedule step": "--learning-rate-schedule must be one of constant, cosine, got step",
    "--patience -1": "--patience must be at least 0, got -1",
    "--tolerance -1": "--tolerance must be finite and at least 0, got -1",
    "--dtype half": "--dtype must be one of float32, float64, got half",
    "--prior-u 0 1": "--prior-u must be finite and above 0, got 0.0",
    "--rank 2": "--rank must be left out with --family normal, .*, got 2: leave it out, or choose --family low_rank",
}


@pytest.mark.parametrize("arguments", MISUSES)
def test_misuse_ends_with_one_line_and_leaves_nothing(arguments, tmp_path):
    process = run(*arguments.split(), "--out", "made/results", cwd=tmp_path)
    assert re.search(MISUSES[arguments], refusal(process))
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == set()
