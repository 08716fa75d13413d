import csv
import json
import math
import re
import shlex
from functools import partial

import pytest

from commands import refusal, run_command

run = partial(run_command, "laplace")


@pytest.fixture(scope="module")
def factorials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factorials")
    return folder, run("--factorial", 5, 10, 100, 10**9, "--out", "results", cwd=folder)


def test_a_run_prints_and_saves_its_results(factorials):
    folder, process = factorials
    assert process.returncode == 0, process.stderr
    saved = {"laplace.json", "laplace.csv", "laplace.png", "laplace.pdf", "config.json"}
    assert {path.name for path in (folder / "results").iterdir()} == saved
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert "…" not in process.stdout
    for word in ("118.019", "9.325e+157", "363.738542", "363.739376", "0.99868", "rounding", "Saved in results"):
        assert word in process.stdout


def test_the_json_and_the_csv_hold_every_row(factorials):
    folder, _ = factorials
    content = json.loads((folder / "results/laplace.json").read_text())
    assert content["environment"]["dtype"] == "float64"
    assert [row["number"] for row in content["rows"]] == [5, 10, 100, 10**9]
    assert [row["reliable"] for row in content["rows"]] == [True, True, True, False]
    for row in content["rows"][:3]:
        assert row["error"] == pytest.approx(math.lgamma(row["number"] + 1) - row["log_approximation"])
        assert row["scaled_error"] == pytest.approx(1 - 1 / (30 * row["number"] ** 2), abs=1e-4)
    with (folder / "results/laplace.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["error"]) for row in rows] == [row["error"] for row in content["rows"]]


def test_the_saved_command_line_repeats_the_run(factorials):
    folder, _ = factorials
    words = shlex.split(json.loads((folder / "results/config.json").read_text())["command_line"])
    assert words == ["vae-jax", "laplace", "--factorial", "5", "10", "100", "1000000000"]
    assert run(*words[2:], "--out", "again", cwd=folder).returncode == 0
    first, second = (json.loads((folder / f / "laplace.json").read_text())["rows"] for f in ("results", "again"))
    assert first == second


MISUSES = {
    "": "--factorial must have at least one number, got none: write --factorial 5 10 100",
    "--factorial": "--factorial must have at least one number, got none",
    "--factorial 5 -3": "--factorial must be from 1 to 1,000,000,000, got .*-3",
    "--factorial 0": "--factorial must be from 1 to 1,000,000,000, got .*0",
    "--factorial 9999999999": "--factorial must be from 1 to 1,000,000,000, got .*9999999999",
    "--factorial 2.5": "--factorial.*2.5",
    "--factorial many": "--factorial.*many",
    "--factorial 5 --out a_file/below": "--out must be a folder that can be written to, got a_file/below",
    "--another": "Unrecognized options: --another",
}


@pytest.mark.parametrize("arguments", MISUSES)
def test_misuse_ends_with_one_line_and_leaves_nothing(arguments, tmp_path):
    (tmp_path / "a_file").touch()
    words = arguments.split()
    out = () if "--out" in words else ("--out", "made/results")
    process = run(*words, *out, cwd=tmp_path)
    assert re.search(MISUSES[arguments], refusal(process))
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"a_file"}
