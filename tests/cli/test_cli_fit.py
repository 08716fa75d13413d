import csv
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

SAVED = {"fit.json", "fit.csv", "history.csv", "fit.png", "fit.pdf", "config.json"}
SHORT = ("--num-steps", 1000, "--window", 250, "--num-restarts", 2)


def run(*arguments, cwd):
    environment = os.environ | {"XDG_CACHE_HOME": str(cwd / "cache"), "JAX_PLATFORMS": "cpu", "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "vae_jax", "fit", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def write_table(path, rows):
    path.write_text("\n".join(["count,x,other", *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.fixture(scope="module")
def poisson_gamma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poisson_gamma")
    return folder, run("--problem", "poisson-gamma", "--family", "normal", "--out", "results", cwd=folder)


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


def test_the_saved_command_line_repeats_the_fit(tmp_path):
    first = run("--problem", "poisson-gamma", "--family", "full_rank", *SHORT, "--out", "results", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    words = shlex.split(json.loads((tmp_path / "results/config.json").read_text())["command_line"])
    assert run(*words[2:], "--out", "again", cwd=tmp_path).returncode == 0
    one, other = (json.loads((tmp_path / f / "fit.json").read_text()) for f in ("results", "again"))
    assert one["rows"] == other["rows"]
    assert one["fit"] == other["fit"]


def test_a_regression_agrees_with_laplace(data_folder, tmp_path):
    process = run(
        "--csv", data_folder / "quakes.csv", "--response", "stations", "--predictors", "mag", "depth",
        "--num-steps", 5000, "--window", 500, "--learning-rate", 0.03, "--num-restarts", 2,
        "--out", "results", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (tmp_path / "results").iterdir()} == SAVED
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert "vary 2.87 times as much as a Poisson's" in process.stdout
    content = json.loads((tmp_path / "results/fit.json").read_text())
    assert content["fit"]["converged"]
    assert [row["coefficient"] for row in content["rows"]] == ["(intercept)", "mag", "depth"]
    for row in content["rows"]:
        assert abs(row["mean"] - row["laplace_mean"]) < 0.2 * row["laplace_std"]
        assert row["std"] == pytest.approx(row["laplace_std"], rel=0.1)
    magnitude = content["rows"][1]
    scale = content["fit"]["standardised_by"]["mag"]["std"]
    assert magnitude["own_scale_mean"] == pytest.approx(magnitude["mean"] / scale, rel=1e-6)
    assert magnitude["own_scale_std"] == pytest.approx(magnitude["std"] / scale, rel=1e-3)


def test_batches_of_a_table(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=300)
    write_table(tmp_path / "data.csv", zip(generator.poisson(np.exp(1 + 0.5 * x)), x, x, strict=True))
    table = ("--csv", "data.csv", "--response", "count", "--predictors", "x", "--batch-size", 30)
    process = run(*table, "--family", "normal", *SHORT, "--out", "results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    row = json.loads((tmp_path / "results/fit.json").read_text())["rows"][1]
    assert row["mean"] == pytest.approx(row["laplace_mean"], abs=2 * row["laplace_std"])


TABLE = "--csv data.csv --response count --predictors x"
ROWS = [(3, 0.5, 1), (1, -0.2, 2), (4, 0.1, 3), (0, 0.9, 4)]
BAD_ROWS = {
    "negative": ((-2, 0.5, 1), "column 'count' of data.csv must hold natural numbers, got -2 in line 6"),
    "fractional": ((2.5, 0.5, 1), "column 'count' of data.csv must hold natural numbers, got 2.5 in line 6"),
    "nan": ((2, "nan", 1), "column 'x' of data.csv must hold finite numbers, got nan in line 6"),
    "empty": ((2, "", 1), "column 'x' of data.csv must hold finite numbers, got an empty cell in line 6"),
    "ragged": ((2, 1), "data.csv must have 3 cells a line"),
}

MISUSES = {
    "": "one of --problem and --csv must be given, got neither",
    "--problem poisson-gamma --csv data.csv": "one of --problem and --csv must be given, got both",
    "--problem square": "--problem must be poisson-gamma, got square",
    "--problem poisson-gamma --family other": "--family must be one of normal, log_normal",
    "--problem poisson-gamma --response x": "--response must be left out here",
    "--problem poisson-gamma --estimator other": "--estimator must be one of",
    "--problem poisson-gamma --num-steps 1500": "num_steps must be a multiple of the window of 1000",
    "--problem poisson-gamma --num-steps 0": "--num-steps must be at least 1, got 0",
    "--problem poisson-gamma --num-samples 0": "--num-samples must be at least 1, got 0",
    "--problem poisson-gamma --learning-rate 0": "--learning-rate must be positive",
    "--problem poisson-gamma --learning-rate-schedule step": "--learning-rate-schedule must be one of",
    "--problem poisson-gamma --patience -1": "--patience must be 0 or more",
    "--problem poisson-gamma --dtype half": "--dtype must be one of",
    "--problem poisson-gamma --prior-u 0 1": "prior_u must have a positive, finite concentration",
    "--csv data.csv --predictors x": "--response must name columns of data.csv, got none",
    "--csv data.csv --response count": "--predictors must name columns of data.csv, got none",
    "--csv data.csv --response count --predictors x x": "--predictors must be other columns than --response",
    "--csv data.csv --response absent --predictors x": "data.csv must have a column 'absent'",
    "--csv absent.csv --response count --predictors x": "the data must be a CSV file that can be read, got absent.csv",
    f"{TABLE} --family gamma": "--family must hold coefficients of either sign, got gamma",
    "--problem poisson-gamma --rank 2": "--rank must be left out with --family normal, got 2",
    "--problem poisson-gamma --tolerance -1": "--tolerance must be 0 or more and finite",
    f"{TABLE} --batch-size 0": "batch_size must be from 1 to the 4 examples, got 0",
    f"{TABLE} --batch-size 100": "batch_size must be from 1 to the 4 examples, got 100",
    f"{TABLE} --data 1 2": "--data must be left out here",
    f"{TABLE} --prior-scale 0": "prior_scale must be positive and finite, got 0",
}


def assert_refused(process, folder, message, *, kept):
    assert process.returncode == 2, process.stderr
    (line,) = [line for line in process.stderr.splitlines() if not line.startswith("compiling")]
    assert re.search(message, line)
    assert line.startswith("vae-jax: error: ")
    assert {path.name for path in folder.iterdir()} - {"cache"} == kept


@pytest.mark.parametrize("arguments", MISUSES)
def test_misuse_ends_with_one_line_and_leaves_nothing(arguments, tmp_path):
    write_table(tmp_path / "data.csv", ROWS)
    process = run(*arguments.split(), "--out", "made/results", cwd=tmp_path)
    assert_refused(process, tmp_path, MISUSES[arguments], kept={"data.csv"})


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_bad_rows_are_named_and_leave_nothing(fault, tmp_path):
    row, message = BAD_ROWS[fault]
    write_table(tmp_path / "data.csv", [*ROWS, row])
    assert_refused(run(*TABLE.split(), "--out", "made", cwd=tmp_path), tmp_path, message, kept={"data.csv"})


def test_a_table_without_rows_or_variation_is_refused(tmp_path):
    write_table(tmp_path / "data.csv", [])
    message = "data.csv must have rows of numbers below its column names, got none"
    assert_refused(run(*TABLE.split(), "--out", "made", cwd=tmp_path), tmp_path, message, kept={"data.csv"})
    write_table(tmp_path / "data.csv", [(count, 1.0, 2) for count, *_ in ROWS])
    message = "column 'x' must have several values, got 1 alone"
    assert_refused(run(*TABLE.split(), "--out", "made", cwd=tmp_path), tmp_path, message, kept={"data.csv"})
