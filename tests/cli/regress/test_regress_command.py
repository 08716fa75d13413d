import json
import re
import shlex
from functools import partial

import numpy as np
import pytest

from commands import refusal, run_command

SAVED = {"regress.json", "regress.csv", "history.csv", "regress.png", "regress.pdf", "config.json"}
SHORT = ("--num-steps", 1000, "--window", 250, "--num-restarts", 2)

run = partial(run_command, "regress")


def write_table(path, rows):
    path.write_text("\n".join(["count,x,other", *(",".join(map(str, row)) for row in rows)]) + "\n")


def laplace_by_hand(predictors, counts):
    """Means and standard deviations by Newton's method, under the command's own priors."""
    standard = (predictors - predictors.mean(0)) / predictors.std(0)
    design = np.column_stack([np.ones(len(counts)), standard])
    prior_precision = np.diag([10.0**-2, *[2.5**-2] * predictors.shape[1]])
    mode = np.array([np.log(counts.mean()), *np.zeros(predictors.shape[1])])
    for _ in range(30):
        means = np.exp(design @ mode)
        covariance = np.linalg.inv(design.T @ (means[:, None] * design) + prior_precision)
        mode = mode + covariance @ (design.T @ (counts - means) - prior_precision @ mode)
    return mode, np.sqrt(np.diagonal(covariance))


@pytest.mark.slow
def test_a_regression_agrees_with_laplace(data_folder, tmp_path):
    process = run(
        data_folder / "quakes.csv", "--response", "stations", "--predictors", "mag", "depth",
        "--num-steps", 5000, "--window", 500, "--learning-rate", 0.03, "--num-restarts", 2,
        "--out", "results", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (tmp_path / "results").iterdir()} == SAVED
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert "vary 2.87 times as much as a Poisson's" in process.stdout
    content = json.loads((tmp_path / "results/regress.json").read_text())
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
    counts = generator.poisson(np.exp(1 + 0.5 * x))
    write_table(tmp_path / "data.csv", zip(counts, x, x, strict=True))
    table = ("data.csv", "--response", "count", "--predictors", "x", "--batch-size", 30)
    process = run(*table, "--family", "normal", *SHORT, "--out", "results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    content = json.loads((tmp_path / "results/regress.json").read_text())
    row = content["rows"][1]
    assert row["mean"] == pytest.approx(row["laplace_mean"], abs=2 * row["laplace_std"])
    mode, std = laplace_by_hand(x[:, None], counts)
    np.testing.assert_allclose([row["laplace_mean"] for row in content["rows"]], mode, rtol=1e-4)
    np.testing.assert_allclose([row["laplace_std"] for row in content["rows"]], std, rtol=1e-4)
    words = shlex.split(json.loads((tmp_path / "results/config.json").read_text())["command_line"])
    assert words[:3] == ["vae-jax", "regress", "data.csv"]
    assert run(*words[2:], "--out", "again", cwd=tmp_path).returncode == 0
    again = json.loads((tmp_path / "again/regress.json").read_text())
    assert (again["rows"], again["fit"]) == (content["rows"], content["fit"])


def test_large_counts_are_compared_in_float64(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.normal(size=60)
    counts = generator.poisson(1e6 * np.exp(0.5 + 0.3 * x))
    write_table(tmp_path / "data.csv", zip(counts, x, x, strict=True))
    short = ("--num-steps", 100, "--window", 50, "--num-restarts", 1)
    process = run("data.csv", "--response", "count", "--predictors", "x", *short, "--out", "results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    rows = json.loads((tmp_path / "results/regress.json").read_text())["rows"]
    mode, std = laplace_by_hand(x[:, None], counts)
    np.testing.assert_allclose([row["laplace_mean"] for row in rows], mode, atol=1e-6 * std.min())
    np.testing.assert_allclose([row["laplace_std"] for row in rows], std, rtol=1e-6)


def test_a_fit_outlives_a_comparison_that_fails(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no mode: none was reached")

    monkeypatch.setattr("vae_jax.cli.regress.regression_fit.laplace", fails)
    write_table(tmp_path / "data.csv", ROWS)
    short = ("--num-steps", 100, "--window", 50, "--num-restarts", 1)
    process = run(*TABLE.split(), *short, "--out", "results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (tmp_path / "results").iterdir()} == SAVED
    assert "No comparison with Laplace's approximation: no mode: none was reached" in process.stdout
    assert "nan" not in process.stdout
    content = json.loads((tmp_path / "results/regress.json").read_text())
    assert content["fit"]["laplace_failure"] == "no mode: none was reached"
    assert content["fit"]["laplace_log_evidence"] is None
    assert content["rows"][1]["laplace_std"] is None
    assert content["rows"][1]["std"] > 0


TABLE = "data.csv --response count --predictors x"
ROWS = [(3, 0.5, 1), (1, -0.2, 2), (4, 0.1, 3), (0, 0.9, 4)]
BAD_ROWS = {
    "negative": ((-2, 0.5, 1), "column 'count' of data.csv must hold natural numbers, got -2 in line 6"),
    "fractional": ((2.5, 0.5, 1), "column 'count' of data.csv must hold natural numbers, got 2.5 in line 6"),
    "nan": ((2, "nan", 1), "column 'x' of data.csv must hold finite numbers, got nan in line 6"),
    "empty": ((2, "", 1), "column 'x' of data.csv must hold finite numbers, got an empty cell in line 6"),
    "ragged": ((2, 1), "data.csv must have 3 cells a line"),
}

MISUSES = {
    "": "Missing from vae-jax regress: FILE.csv .* --response STR .* --predictors",
    "data.csv --predictors x": "Missing from vae-jax regress: --response STR Column of counts: vae-jax regress --help",
    "data.csv --response count --predictors": "--predictors must name columns of data.csv, got none",
    "data.csv --response count --predictors x x": "--predictors must be other columns than --response.* got x twice",
    "data.csv --response absent --predictors x": "data.csv must have a column 'absent'",
    "absent.csv --response count --predictors x": "the data must be a CSV file that can be read, got absent.csv",
    f"{TABLE} --family gamma": "--family must be one of normal, full_rank, low_rank, flow, got gamma",
    f"{TABLE} --batch-size 0": "--batch-size must be at least 1, got 0",
    f"{TABLE} --batch-size 100": "--batch-size must be from 1 to the 4 examples, got 100",
    f"{TABLE} --data 1 2": "Unrecognized options: --data",
    f"{TABLE} --prior-scale 0": "--prior-scale must be finite and above 0, got 0",
}


def assert_refused(process, folder, message, *, kept):
    assert re.search(message, refusal(process))
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
