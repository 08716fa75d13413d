import csv
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from commands import run_command, run_process
from vae_jax.cli import main
from vae_jax.cli.command_flags import flags_of
from vae_jax.cli.commands import COMMANDS, MOVED, first_line
from vae_jax.cli.csv_numbers import read_counts
from vae_jax.cli.misuse import Misuse
from vae_jax.cli.out_of_memory import out_of_memory
from vae_jax.cli.output_folder import staged
from vae_jax.cli.parsing import parse
from vae_jax.cli.problem_flags import WITH_COST
from vae_jax.problems import COSTS

SMALL = ("--num-samples", "5", "20", "--num-replicates", "50")
SMALLEST = ("--estimators", "pathwise", *SMALL)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return folder, run_process("variance", *SMALL, "--out", "results", cwd=folder)


def test_a_run_prints_and_saves_its_results(small_run):
    folder, process = small_run
    assert process.returncode == 0, process.stderr
    saved = {"variance.json", "variance.csv", "replicates.png", "replicates.pdf", "std.png", "std.pdf", "config.json"}
    assert {path.name for path in (folder / "results").iterdir()} == saved
    assert max(map(len, process.stdout.splitlines())) <= 80
    for word in ("score_function+leave_one_out", "undefined", "∞", "correlated", "Saved in results"):
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
    "--num-replicates 99999999999": "num_replicates must be at most",
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
    "--family another": "--family must be one of normal, log_normal, got another",
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
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert re.search(MISUSES[arguments], line)
    assert line.startswith("vae-jax: error: ")
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


@pytest.mark.parametrize("text", ["3,4,10\n", "3\n4\n10", "\ufeff3\n4\n10\n"])
def test_one_row_or_one_column_is_read_whole(text, tmp_path):
    (tmp_path / "counts.csv").write_text(text, encoding="utf-8")
    assert read_counts([str(tmp_path / "counts.csv")]) == (3.0, 4.0, 10.0)


def test_results_replace_those_of_an_earlier_run_only_when_whole(tmp_path):
    out = tmp_path / "results"
    with staged(out) as folder:
        (folder / "a").write_text("first")

    def fail_halfway():
        with staged(out) as folder:
            (folder / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert [path.name for path in out.iterdir()] == ["a"]
    assert (out / "a").read_text() == "first"
    (out / "b").mkdir()
    with pytest.raises(IsADirectoryError), staged(out) as folder:
        (folder / "b").write_text("in the way of a folder")
    assert {path.name for path in out.iterdir()} == {"a", "b"}


def test_help_needs_no_jax(tmp_path):
    script = (
        "import sys\nfrom vae_jax.cli import main\n"
        "try: main(['variance', '--help'])\nfinally: print(sorted(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "--num-replicates" in process.stdout
    loaded = process.stdout.splitlines()[-1]
    for module in ("'jax'", "'numpy'", "'matplotlib'", "'numpyro'"):
        assert module not in loaded


def test_every_estimator_that_a_problem_admits_is_shown_with_its_cost(tmp_path):
    process = run_command(
        "variance", "--problem", "bernoulli", "--estimators", "all", "--num-samples", "2", "4",
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


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return folder, run_process(
        "compare", "pathwise", "score_function", "--problem", "cosine", "--cost", "2", "--params", "loc=0.5",
        "--num-samples", "5", "20", "--num-replicates", "2000", "--out", "results", cwd=folder,
    )  # fmt: skip


def test_a_comparison_prints_and_saves_its_ratios(compared):
    folder, process = compared
    assert process.returncode == 0, process.stderr
    assert max(map(len, process.stdout.splitlines())) <= 80
    assert "pathwise over score_function" in process.stdout
    saved = {"compare.json", "compare.csv", "ratios.png", "ratios.pdf", "config.json"}
    assert {path.name for path in (folder / "results").iterdir()} == saved
    rows = json.loads((folder / "results/compare.json").read_text())["rows"]
    assert len(rows) == 3 * 2
    for row in rows:
        if row["parameter"] != "cost":
            # Six times the interval's reach: the exact ratio is in it but once in many millions.
            reach = (row["variance_ratio_upper"] / row["variance_ratio"]) ** 3
            assert 1 / reach < row["exact_variance_ratio"] / row["variance_ratio"] < reach
            assert row["variance_ratio"] != 1


def test_the_saved_command_line_repeats_a_comparison(compared):
    folder, _ = compared
    words = shlex.split(json.loads((folder / "results/config.json").read_text())["command_line"])
    assert words[:4] == ["vae-jax", "compare", "pathwise", "score_function"]
    assert run_command(*words[1:], "--out", "again", cwd=folder).returncode == 0
    times = {"seconds_ratio", "variance_seconds_ratio"}
    first, second = (
        [{k: v for k, v in row.items() if k not in times} for row in json.loads((folder / f).read_text())["rows"]]
        for f in ("results/compare.json", "again/compare.json")
    )
    assert first == second


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pathwise", "pathwise"), "the estimators must be two, got pathwise twice"),
        (("pathwise", "another"), "estimators must be among pathwise, .*, got another"),
        (("pathwise",), "Missing from vae-jax compare: .* by whose variance it is divided: vae-jax compare --help"),
        (("pathwise", "arm", "--problem", "square"), "arm: q must be .* got a Normal"),
    ],
)
def test_misuse_of_compare_ends_with_one_line(words, message, tmp_path):
    process = run_command("compare", *words, "--out", "made", cwd=tmp_path)
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "made").exists()


UNPARSED = {
    "sample digits --num 0": "Unrecognized options: --num, 0: perhaps --num-images; vae-jax sample --help lists",
    "sample digits --num=0": "Unrecognized options: --num=0: perhaps --num-images; vae-jax sample --help lists",
    "fit --lerning_rate 1": "Unrecognized options: --lerning_rate, 1: perhaps --learning-rate or --learning-rate-sch",
    "evidence --num-latents 1.5": "--num-latents must be whole numbers, got 1.5: vae-jax evidence --help explains it",
    "evidence --num-latents=1.5 2 --seed 1": "--num-latents must be whole numbers, got 1.5 2: vae-jax evidence",
    "evaluate run --num-images few": "--num-images must be a whole number, got few: vae-jax evaluate --help expl",
    "fit --learning-rate fast": "--learning-rate must be a number, got fast: vae-jax fit --help explains it",
    "fit --patience 1.5": "--patience must be a whole number, got 1.5: vae-jax fit --help explains it",
    "variance --scale 1 x": "--scale must be 2 numbers, got 1 x: vae-jax variance --help explains it",
    "variance --seed": "--seed must be a whole number, got none: vae-jax variance --help explains it",
    "plot run --checkpoint first": "--checkpoint must be one of best, latest, got first: vae-jax plot --help expl",
    "fit --problem square": "--problem must be poisson-gamma, got square: vae-jax fit --help explains it",
    "sample": "Missing from vae-jax sample: RUN Folder of the training run: vae-jax sample --help explains it",
    "smaple digits": "the command must be one of variance, compare, .*, got smaple: vae-jax --help explains each",
    "--debug sample digits": "the command must be one of .*, got --debug: vae-jax --help explains each",
}


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("words", UNPARSED)
def test_words_that_a_command_does_not_take_are_told_in_one_line_of_its_own_flags(words, is_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    with pytest.raises(Misuse) as caught:
        parse(words.split())
    assert re.match(UNPARSED[words], str(caught.value))
    assert len(str(caught.value)) < 240
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_command_are_those_that_its_help_shows(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = re.findall(r"^(?:│ | *)(--[a-z][\w-]*)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(flags_of(COMMANDS[command])) == sorted(shown)


def test_help_fits_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], *([command] for command in COMMANDS)):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert words or len(lines) < 60


def test_a_script_for_completion_is_left_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) > 80
    subprocess.run(["bash", "-n"], input=output, text=True, check=True)


def test_the_list_of_commands_has_the_first_sentence_of_each(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    output = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    for name, command in COMMANDS.items():
        assert f"• {name} {first_line(command)}" in output


@pytest.mark.parametrize(("command", "flag"), MOVED)
@pytest.mark.parametrize("value", [" x", "=x"])
def test_a_flag_that_became_a_command_names_it_in_one_line(command, flag, value, capsys):
    assert main([command, "--seed", "1", *f"{flag}{value}".split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vae-jax: error: vae-jax {command} {flag} is now vae-jax {MOVED[command, flag]}: ")
    assert MOVED[command, flag].split()[0] in COMMANDS


EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory "


@pytest.mark.parametrize(
    ("error", "command", "said"),
    [
        (RuntimeError(f"{EXHAUSTED}allocating 35265949344 bytes."), "train", "35.3 GB were asked for at once: lower "),
        (RuntimeError(f"{EXHAUSTED}while trying to allocate 32.84GiB."), "fit", "35.3 GB were asked for at once: low"),
        (MemoryError("Unable to allocate 12.0 MiB for an array"), "plot", "12.6 MB were asked for at once: free some"),
        (MemoryError(), "encode", "more was asked for than there is: free some, or take a machine with more"),
    ],
)
def test_memory_that_does_not_suffice_is_told_in_words(error, command, said, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(COMMANDS[command], "run", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main([command, *(["folder"] if command in ("plot", "encode") else [])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vae-jax: error: the memory does not suffice, {said}")


def test_the_flags_that_memory_grows_with_are_those_of_the_command():
    assert "lower --batch-size, --num-samples or --num-seeds, or" in out_of_memory(MemoryError(), COMMANDS["train"])
    assert "lower --num-images, or" in out_of_memory(MemoryError(), COMMANDS["sample"])


def test_a_reader_that_has_had_enough_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "vae_jax", "train", "--help"],
        cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert process.returncode == 1
    assert process.stderr == ""


def test_plot_names_its_folders_as_its_help_does(capsys):
    assert main(["plot"]) == 2
    assert capsys.readouterr().err.startswith("vae-jax: error: FOLDERS must be folders of runs, got none")
    with pytest.raises(SystemExit):
        main(["plot", "--help"])
    assert "usage: vae-jax plot [-h] [PLOT OPTIONS] FOLDERS\n" in capsys.readouterr().out
