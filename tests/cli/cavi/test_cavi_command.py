import csv
import json
import math
import re
import shlex
from functools import partial

import numpy as np
import pytest

from commands import refusal, run_command
from vae_jax.cli.csv_numbers import read_columns
from vae_jax.cli.misuse import Misuse

GOOD = "name,east,north,felt\n" + "".join(
    f"e{number},{x},{y},{count}\n"
    for number, (x, y, count) in enumerate(
        [(0, 0, 3), (0.1, 0, 2), (0, 0.2, 4), (9, 9, 30), (9.1, 9, 25), (9, 8.8, 28), (9.2, 9.1, 31), (0.1, 0.1, 3)]
    )
)
FLAGS = ("--position", "east", "north", "--count", "felt", "--num-restarts", 5)

run = partial(run_command, "cavi")


def content(folder):
    return json.loads((folder / "cavi.json").read_text())


FIGURES = {f"{name}.{kind}" for name in ("counts", "elbo_by_sweep") for kind in ("png", "pdf")}
MAP = {"map.png", "map.pdf"}
BY_NUMBER = {"elbo_by_num_components.png", "elbo_by_num_components.pdf"}
TABLES = {"cavi.json", "cavi.csv", "components.csv", "responsibilities.npz", "config.json"}


@pytest.fixture(scope="module")
def felt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("felt")
    (folder / "events.csv").write_text(GOOD)
    return folder, run("events.csv", *FLAGS, "--num-components", "1:3", 5, "--out", "results", cwd=folder)


def test_a_run_prints_and_saves_its_results(felt):
    folder, process = felt
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (folder / "results").iterdir()} == TABLES | FIGURES | MAP | BY_NUMBER
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert "…" not in process.stdout
    for word in (
        "8 events",
        "+ log K!",
        "<- highest",
        "Components at K = 2",
        "Empty components coincide",
        "rate ± std",
        "Saved in results",
    ):
        assert word in process.stdout
    assert "raise it" not in process.stdout


def test_the_files_agree_with_each_other(felt):
    folder = felt[0] / "results"
    saved = content(folder)
    assert [row["num_components"] for row in saved["rows"]] == [1, 2, 3, 5]
    assert [row["num_empty"] for row in saved["rows"]] == [0, 0, 1, 3]
    for row in saved["rows"]:
        orders = math.lgamma(row["num_components"] + 1) - math.lgamma(row["num_empty"] + 1)
        assert row["log_symmetries"] == pytest.approx(orders)
        assert row["elbo_plus_log_symmetries"] == pytest.approx(row["elbo"] + row["log_symmetries"])
        assert row["elbo_history"][-1] == row["elbo"] == max(row["restart_elbos"])
        assert len(row["elbo_history"]) == row["num_steps"]
    assert (
        saved["best_num_components"]
        == max(saved["rows"], key=lambda row: row["elbo_plus_log_symmetries"])["num_components"]
    )
    with (folder / "cavi.csv").open() as file:
        assert [float(row["elbo"]) for row in csv.DictReader(file)] == [row["elbo"] for row in saved["rows"]]
    with (folder / "components.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["east"]) for row in rows] == [each["east"] for each in saved["components"]]
    with np.load(folder / "responsibilities.npz") as arrays:
        assert arrays["responsibilities"].shape == (8, 2)
        np.testing.assert_allclose(arrays["responsibilities"].sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(arrays["component"][[0, 1, 2, 7]], arrays["component"][0])
        np.testing.assert_array_equal(arrays["counts"], [3, 2, 4, 30, 25, 28, 31, 3])


@pytest.mark.slow
def test_the_saved_command_line_repeats_the_run(felt):
    folder, _ = felt
    words = shlex.split(json.loads((folder / "results/config.json").read_text())["command_line"])
    assert words[:3] == ["vae-jax", "cavi", "events.csv"]
    process = run(*words[2:], "--out", "again", cwd=folder)
    assert process.returncode == 0, process.stderr
    first, second = (content(folder / name) for name in ("results", "again"))
    for key in ("rows", "components", "hyperparameters"):
        assert first[key] == second[key]


@pytest.mark.slow
def test_a_range_that_ends_at_its_best_and_a_run_that_does_not_converge_say_so(tmp_path):
    (tmp_path / "events.csv").write_text(GOOD)
    process = run("events.csv", *FLAGS, "--num-components", "1:2", "--max-steps", 1, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "The range ends at its best, K = 2: raise it" in process.stdout
    assert re.search(r"Not converged after 1 sweeps: K = 1, 2\.", process.stdout)
    assert content(tmp_path / "vae-jax-cavi")["range_ends_at_best"] is True


@pytest.mark.slow
def test_a_simulated_truth_is_recovered(tmp_path):
    arguments = ("--simulate", 600, "--num-components", "3:5", "--num-restarts", 20)
    process = run(*arguments, "--out", "results", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert {path.name for path in (tmp_path / "results").iterdir()} == TABLES | FIGURES | MAP | BY_NUMBER | {
        "events.csv"
    }
    saved = content(tmp_path / "results")
    found = saved["recovery"]
    assert saved["best_num_components"] == 4
    assert found["share_labelled_right"] > 0.97 * found["share_attainable"] > 0.8
    assert sorted(each["matched_component"] for each in found["components"]) == [1, 2, 3, 4]
    for each in found["components"]:
        fitted = saved["components"][each["matched_component"] - 1]
        for name, true in (("x", each["loc"][0]), ("y", each["loc"][1]), ("rate", each["rate"])):
            assert abs(fitted[name] - true) < 4.5 * fitted[f"{name}_std"]
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert "labelled right" in process.stdout
    columns = read_columns(tmp_path / "results/events.csv", ("x", "y", "count"), counts=("count",))
    assert len(columns["x"]) == 600


@pytest.mark.slow
def test_given_weights_set_the_number_and_one_column_has_no_map(tmp_path):
    (tmp_path / "events.csv").write_text(GOOD)
    words = ("--position", "east", "--count", "felt", "--weights", 0.5, 0.3, 0.2, "--position-precision", 4)
    process = run("events.csv", *words, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "vae-jax-cavi"
    assert {path.name for path in folder.iterdir()} == TABLES | FIGURES
    saved = content(folder)
    assert [each["weight"] for each in saved["components"]] == pytest.approx([0.5, 0.3, 0.2])
    assert saved["rows"][0]["log_symmetries"] == 0
    assert saved["hyperparameters"]["position_precision"] == 4
    assert "given weights differ" in process.stdout


@pytest.mark.slow
def test_given_weights_are_those_of_what_is_simulated(tmp_path):
    words = ("--simulate", 40, "--weights", 0.7, 0.3, "--prior-loc", 5, -3, "--num-restarts", 3, "--out", "results")
    process = run(*words, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    saved = content(tmp_path / "results")
    assert [each["weight"] for each in saved["recovery"]["components"]] == pytest.approx([0.7, 0.3])
    assert saved["hyperparameters"]["prior_loc"] == [5, -3]


@pytest.mark.slow
def test_the_normal_wishart_mixture_has_no_counts(tmp_path):
    (tmp_path / "events.csv").write_text(GOOD)
    words = ("--position", "east", "north", "--model", "normal-wishart", "--num-components", "1:3", "--degrees", 3)
    process = run("events.csv", *words, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    files = {path.name for path in (tmp_path / "vae-jax-cavi").iterdir()}
    assert files == TABLES | MAP | BY_NUMBER | {"elbo_by_sweep.png", "elbo_by_sweep.pdf"}
    assert "rate" not in process.stdout


@pytest.mark.slow
def test_the_quakes_of_fiji(data_folder, tmp_path):
    words = ("--position", "long", "lat", "--count", "stations", "--num-components", 4, 6, "--num-restarts", 20)
    process = run(data_folder / "quakes.csv", *words, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    saved = content(tmp_path / "vae-jax-cavi")
    assert saved["best_num_components"] == 6
    assert "counts vary more than a Poisson's" in process.stdout
    assert sum(each["num_events"] for each in saved["components"]) == pytest.approx(1000, rel=1e-4)
    assert all(160 < each["long"] < 190 and -40 < each["lat"] < -10 for each in saved["components"])


BAD_FILES = {
    "name,east,north\na,0,1\n": "events.csv must have a column 'felt', got name, east, north: name one of these",
    "east,north,felt\n0,0,1\n1,nan,2\n": "column 'north' of events.csv must hold finite numbers, got nan in line 3",
    "east,north,felt\n0,0,1\n1,,2\n": "column 'north' of events.csv must hold finite numbers, got an empty cell in",
    "east,north,felt\n0,0,1\n1,near,2\n": "column 'north' of .* got near in line 3",
    "east,north,felt\n0,0,1\n1,inf,2\n": "column 'north' of .* got inf in line 3",
    "east,north,felt\n0,0,-1\n1,1,2\n": "column 'felt' of events.csv must hold natural numbers, got -1 in line 2",
    "east,north,felt\n0,0,1.5\n1,1,2\n": "column 'felt' of events.csv must hold natural numbers, got 1.5 in line 2",
    "east,north,felt\n0,0,1\n1,1\n": "events.csv must have 3 cells a line.* got 2 in line 3",
    "east,north,felt\n": "events.csv must have rows of numbers below its column names, got none",
    "east,east,north,felt\n1,1,1,1\n": "events.csv must have one column 'east', got 2 of them",
    "0,0,1\n1,1,2\n": "events.csv must begin with a line of column names, got 0,0,1",
    "": "events.csv must have a line of column names and rows of numbers, got an empty file",
}


PLACES = {
    ("1,2", "1,2", "1,2"): "'east', 'north' of events.csv must differ from row to row, got 1, 2 in all of them: give "
    "--position-precision and --prior-precision",
}
PLACES_OF_NORMAL_WISHART = {
    ("1,2", "3,2", "4,2"): "column 'north' of events.csv must differ from row to row, got 2 in all of them: leave it",
    ("1,2", "2,4", "3,6"): "'east', 'north' of events.csv must be linearly independent .* got rank 1: leave columns",
    ("1,2", "3,2.5"): "must be linearly independent .* got rank 1",
}


@pytest.mark.parametrize(
    ("places", "flags", "message"),
    [(places, ("--count", "felt"), message) for places, message in PLACES.items()]
    + [(places, ("--model", "normal-wishart"), message) for places, message in PLACES_OF_NORMAL_WISHART.items()],
)
def test_places_without_a_spread_name_their_columns_and_leave_nothing(places, flags, message, tmp_path, refused):
    (tmp_path / "events.csv").write_text("east,north,felt\n" + "".join(f"{place},3\n" for place in places))
    assert_misuse(refused("events.csv", "--position", "east", "north", *flags), message, tmp_path)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A call of the command that must be refused before it comes as far as JAX."""

    def refuse(*arguments):
        monkeypatch.setattr("commands.set_precision", lambda *_, **__: pytest.fail("accepted"))
        return run(*arguments, "--out", "made/results", cwd=tmp_path)

    return refuse


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_ends_with_one_line_and_leaves_nothing(text, tmp_path, refused):
    (tmp_path / "events.csv").write_text(text)
    assert_misuse(refused("events.csv", *FLAGS), BAD_FILES[text], tmp_path)


def assert_misuse(process, message, folder):
    assert re.search(message, refusal(process))
    assert {path.name for path in folder.iterdir()} - {"cache"} == {"events.csv"}


MISUSES = {
    "events.csv --count felt": "--position must name the columns of the places, got none",
    "events.csv --position east": "--count must name the column of the counts, got none",
    "events.csv --position east east --count felt": "must name different columns, got east east felt",
    "events.csv --position east --count felt --simulate 5": "--simulate, got both",
    "--position east --count felt": "--simulate, got neither",
    "missing.csv --position east --count felt": "CSV file that can be read, got missing.csv: No such file",
    "GOOD --num-components 0": "--num-components must be numbers from 1 or ranges as 1:12, got 0",
    "GOOD --num-components 3:1": "got 3:1",
    "GOOD --num-components many": "got many",
    "GOOD --weights 0.5 0.5 --weight-concentration 1": "must be left out with --weights 0.5 0.5, .* out --weights",
    "GOOD --degrees 3": "--degrees must be left out with --model gaussian-poisson, .* choose --model normal-wishart",
    "GOOD --model gaussian": "--model must be one of gaussian-poisson, normal-wishart, got gaussian",
    "GOOD --model normal-wishart": "--count must be left out with --model normal-wishart, .*, got .*: leave it out",
    "--simulate 9 --model normal-wishart": "--simulate must be left out with --model normal-wishart, .* got 9",
    "GOOD --seed -1": "--seed must be from 0",
    "GOOD --num-restarts 0": "--num-restarts must be at least 1, got 0",
    "GOOD --dtype float16": "--dtype must be one of float32, float64, got float16",
    "--simulate 0": "--simulate must be at least 1, got 0",
    "--simulate 9 --true-num-components 0": "--true-num-components must be at least 1, got 0",
    "GOOD --true-num-components 3": "must be left out without --simulate, .*, got 3: leave it out, or add --simulate",
    "GOOD --tolerance -1": "--tolerance must be finite and at least 0, got -1.0",
    "--simulate 9 --rate 0": "--rate must be finite and above 0, got 0",
    "GOOD --weight-concentration 0": "--weight-concentration must be finite and above 0, got 0",
    "GOOD --weight-concentration nan": "--weight-concentration must be finite and above 0, got nan",
}

MISUSES_OF_THE_LIBRARY = {
    "GOOD --num-components 9": "--num-components must be at most the 8 events, got 9: lower it",
    "GOOD --num-components 1:999999999999": "at most the 8 events, got 999,999,999,999",
    "GOOD --weights 0.5 0.6": "weights must sum to 1, got 1.1",
    "--simulate 9 --rate 1e-30": "rates must be below 1,073,741,824 to draw counts, got .*: raise rate",
}


def words_of(arguments):
    return arguments.replace("GOOD", "events.csv --position east north --count felt").split()


@pytest.mark.parametrize("arguments", MISUSES)
def test_misuse_ends_with_one_line_and_leaves_nothing(arguments, tmp_path, refused):
    (tmp_path / "events.csv").write_text(GOOD)
    assert_misuse(refused(*words_of(arguments)), MISUSES[arguments], tmp_path)


@pytest.mark.parametrize("arguments", MISUSES_OF_THE_LIBRARY)
def test_what_the_library_refuses_ends_with_one_line_and_leaves_nothing(arguments, tmp_path):
    (tmp_path / "events.csv").write_text(GOOD)
    process = run(*words_of(arguments), "--out", "made/results", cwd=tmp_path)
    assert_misuse(process, MISUSES_OF_THE_LIBRARY[arguments], tmp_path)


def test_a_bound_that_is_not_finite_is_no_result(tmp_path):
    (tmp_path / "events.csv").write_text(GOOD)
    words = ("events.csv", *FLAGS, "--num-components", 2, "--position-precision", 1e38, "--out", "made/results")
    process = run(*words, cwd=tmp_path)
    assert process.returncode == 2, process.stderr
    assert "the ELBO must be finite, got nan at best: choose --dtype float64" in process.stderr.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_columns_are_read_by_name(tmp_path):
    path = tmp_path / "events.csv"
    path.write_bytes(b'\xef\xbb\xbfnote, b ,a,last_number\r\n"two\nlines",1e1,-2,0\r\n\r\n-,3,4.5,last\r\n')
    columns = read_columns(path, ("a", "b"), counts=("b",))
    np.testing.assert_array_equal(columns["a"], [-2, 4.5])
    np.testing.assert_array_equal(columns["b"], [10, 3])
    assert columns["a"].dtype == np.float64
    # The first row takes two lines and the blank one is left out.
    with pytest.raises(Misuse, match="got last in line 5"):
        read_columns(path, ("a", "last_number"), counts=())


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "events.csv"
    path.write_bytes(b"\xff\x00\x12")
    with pytest.raises(Misuse, match="not a text file"):
        read_columns(path, ("a",))
