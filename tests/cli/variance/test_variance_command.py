import csv
import json
import re
import shlex

import pytest

from commands import refusal, run_command
from vae_jax.cli.problem_flags import WITH_COST
from vae_jax.problems import COSTS

SMALL = ("--num-samples", "5", "20", "--num-replicates", "50")
SMALLEST = ("--estimators", "pathwise", "--num-samples", "5", "--num-replicates", "50")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, run_command("variance", *SMALL, "--out", "results", cwd=folder)


def test_a_run_prints_and_saves_its_results(small_run):
    folder, process = small_run
    assert process.returncode == 0, process.stderr
    saved = {"variance.json", "variance.csv", "replicates.png", "replicates.pdf", "std.png", "std.pdf", "config.json"}
    assert {path.name for path in (folder / "results").iterdir()} == saved
    assert max(map(len, process.stdout.splitlines())) <= 80
    for word in ("score_function+leave_one_out", "?", "correlated", "Saved in results"):
        assert word in process.stdout


def test_an_infinite_variance_is_marked(tmp_path):
    process = run_command("variance", *SMALLEST, "--family", "location_scale_normal", "--out", "results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    for word in ("undefined", "∞  q has density at zero", "follows a path"):
        assert word in process.stdout


FIELDS = {
    "problem",
    "estimator",
    "parameter",
    "num_samples",
    "num_replicates",
    "num_nonfinite",
    "mean",
    "mean_se",
    "std",
    "std_se",
    "exact_mean",
    "exact_mean_status",
    "exact_std",
    "exact_std_status",
    "exact_std_se",
    "z_score",
    "tail_index",
    "tail_index_lower",
    "tail_index_upper",
    "reliable",
    "num_evaluations",
    "seconds",
    "seconds_per_estimate",
    "variance_seconds",
}
TIMES = {"seconds", "seconds_per_estimate", "variance_seconds"}  # fmt: skip


def test_the_json_and_the_csv_hold_every_row(small_run):
    folder, _ = small_run
    content = json.loads((folder / "results/variance.json").read_text())
    assert {"versions", "device", "dtype", "seed", "git_revision"} <= set(content["environment"])
    assert len(content["rows"]) == 4 * 5 * 2
    for row in content["rows"]:
        assert set(row) == FIELDS
        assert (row["exact_std"] is not None) == (row["exact_std_status"] == "finite")
    with (folder / "results/variance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["parameter"] for row in rows] == [row["parameter"] for row in content["rows"]]


@pytest.mark.slow
def test_the_saved_command_line_repeats_the_run(small_run):
    folder, _ = small_run
    words = shlex.split(json.loads((folder / "results/config.json").read_text())["command_line"])
    assert words[0] == "vae-jax"
    assert run_command(*words[1:], "--out", "again", cwd=folder).returncode == 0
    first, second = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in json.loads((folder / f).read_text())["rows"]]
        for f in ("results/variance.json", "again/variance.json")
    )
    assert first == second


def test_counts_come_from_a_file_and_float64_is_honoured(tmp_path):
    (tmp_path / "counts.csv").write_text("count\n3\n4\n\n 10 \n1234567\n  \n", encoding="utf-8-sig")
    process = run_command(
        "variance", *SMALLEST, "--data", "counts.csv", "--dtype", "float64", "--out", "o", cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert json.loads((tmp_path / "o/config.json").read_text())["settings"]["data"] == ["3", "4", "10", "1234567"]
    assert json.loads((tmp_path / "o/variance.json").read_text())["environment"]["dtype"] == "float64"


MISUSES = {
    "--prior-v 4 0": "--prior-v must be finite and above 0, got 0",
    "--data 3 -1": "counts must be integers from 0 .*, got -1.0 as value 2",
    "--data 2.5": "counts must be integers from 0 .*, got 2.5",
    "--data 1e40": "counts must be integers from 0 .*, got 1e[+]40",
    "--data columns.csv": "must be a CSV file with one column, got columns.csv with 2",
    "--data typo.csv": "got '3O' in line 1 of typo.csv",
    "--data empty.csv": "--data must be a CSV file with a count a line, got empty.csv, which holds none",
    "--data words.csv": "got 'many' in line 2 of words.csv",
    "--data missing.csv": "got missing.csv: No such file",
    "--data 1 two": "got 'two' as value 2 of 2",
    "--data": "counts must have at least one value",
    "--scale 0.5 0": "--scale must be finite and above 0, got 0.0",
    "--num-samples 0": "--num-samples must be at least 1, got .*0",
    "--num-samples 1": "leave_one_out needs at least 2 samples, got 1",
    "--num-samples many": "--num-samples must be whole numbers, got many: vae-jax variance --help",
    "--num-replicates 1": "--num-replicates must be at least 2, got 1",
    "--num-replicates 99999999999": "--num-replicates must be at most",
    "--num-replicates 999999999": "must keep the replicates within 4.3 GB",
    "--seed -1": "--seed must be from 0 to 4,294,967,295, got -1",
    "--problem another": "--problem must be one of poisson-gamma, square, .*, got another",
    "--estimators another": "estimators must be among pathwise, .*, got another",
    "--problem square --family log_normal": "--family must be left out with --problem square, .* choose --problem",
    "--problem gamma --cost 2": "--cost must be left out with --problem gamma, .* choose --problem square, cosine, .*",
    "--cost 2": "--cost must be left out with --problem poisson-gamma, where it has no effect, got 2.0: leave it out",
    "--function log": "--function must be left out with --problem poisson-gamma, .*, or choose --problem gamma",
    "--problem square --params scale=-1": "scale must be positive and finite, got -1.0",
    "--problem square --params width=1": "--params must be of loc, scale, got 'width=1': write NAME=VALUE",
    "--problem square --params loc=one": "--params must be NAME=VALUE with numbers, got 'loc=one'",
    "--problem square --params loc=1,2": "--params must give one number here, got 'loc=1,2'",
    "--problem bernoulli --estimators pathwise": "pathwise: q is a BernoulliLogits, which has no reparameterized",
    "--problem square --estimators arm": "arm: q must be .* got a Normal, which is continuous: use pathwise",
    "--problem square --estimators pathwise+antithetic_pairs --num-samples 5": "must be even.*got 5",
    "--family another": "--family must be one of normal, log_normal, location_scale_normal, got another",
    "--dtype half": "--dtype must be one of float32, float64, got half",
    "--out a_file/below": "--out must be a folder that can be written to, got a_file/below",
    "--another": "Unrecognized options: --another: vae-jax variance --help lists the options",
}


@pytest.mark.parametrize("arguments", MISUSES)
def test_misuse_ends_with_one_line_and_leaves_nothing(arguments, tmp_path):
    (tmp_path / "empty.csv").write_text("count\n")
    (tmp_path / "words.csv").write_text("3\nmany\n")
    (tmp_path / "columns.csv").write_text("id,count\n1,3\n2,4\n")
    (tmp_path / "typo.csv").write_text("3O\n4\n")
    (tmp_path / "a_file").touch()
    before = set(tmp_path.rglob("*"))
    words = arguments.split()
    out = () if "--out" in words else ("--out", "made/results")
    process = run_command("variance", *words, *out, cwd=tmp_path)
    assert re.search(MISUSES[arguments], refusal(process))
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


def test_the_costs_that_take_a_parameter_are_those_of_the_library():
    assert tuple(COSTS) == WITH_COST


def test_a_failure_ends_with_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def broken(study):
        raise OSError("disk full")

    monkeypatch.setattr("vae_jax.plotting.std_by_samples", broken)
    quiet, loud = (
        run_command("variance", "--out", "results", *SMALLEST, *flag, cwd=tmp_path) for flag in ((), ("--debug",))
    )
    assert quiet.returncode == loud.returncode == 1
    assert quiet.stderr.splitlines()[-1] == "vae-jax: error: OSError: disk full"
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_every_estimator_that_a_problem_admits_is_shown_with_its_cost(tmp_path):
    process = run_command(
        "variance", "--problem", "bernoulli", "--estimators", "all", "--num-samples", "4",
        "--num-replicates", "50", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert max(map(len, process.stdout.splitlines())) <= 80
    rows = json.loads((tmp_path / "vae-jax-variance/variance.json").read_text())["rows"]
    assert len({row["estimator"] for row in rows}) == 14
    for said in (
        "gradient by logit, 4 samples: exact 0.0250000",
        "cost at 4 samples",
        "Biased by construction",
        "rebar",
    ):
        assert said in process.stdout
    (enumerated,) = (
        row for row in rows if (row["estimator"], row["parameter"], row["num_samples"]) == ("enumeration", "logit", 4)
    )
    assert enumerated["num_evaluations"] == 2
    assert enumerated["exact_std"] == 0
