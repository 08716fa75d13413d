import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from commands import run_command
from vae_jax.cli import main
from vae_jax.cli.command_flags import flags_of
from vae_jax.cli.commands import COMMANDS, MOVED, first_line
from vae_jax.cli.csv_numbers import read_counts
from vae_jax.cli.misuse import Misuse
from vae_jax.cli.out_of_memory import out_of_memory
from vae_jax.cli.output_folder import staged
from vae_jax.cli.parsing import parse
from vae_jax.files import UnsafePath


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
    with pytest.raises(UnsafePath, match="b must be a plain file, got a folder"), staged(out) as folder:
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


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return folder, run_command(
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
        (("pathwise",), "Missing from vae-jax compare: SECOND Estimator in the denominator.*: vae-jax compare --help"),
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
    shown = re.findall(r"^[│ ] (--[a-z][\w-]*)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(flags_of(COMMANDS[command])) == sorted(shown)


def test_help_fits_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], *([command] for command in COMMANDS)):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert words or len(lines) < 60
        # Titles are short, and a paragraph of the description is broken where the terminal ends, not its docstring.
        assert not any(re.match(r"\W*[\w-]+\.[\w-]+ options", line) for line in lines)
        if words == ["reconstruct"]:
            assert "are originals (as the model sees them) and reconstructions, both [N, *shape]" in " ".join(lines)
            assert any(line.startswith("from 0 to 1, and labels") for line in lines)


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
