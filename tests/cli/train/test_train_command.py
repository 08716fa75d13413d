import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from commands import run_command, run_process, settings_of_process, words_of_process
from idx_files import NAMES, small_arrays, write_idx_folder
from sealed_files import rewrite
from vae_jax.cli.commands import COMMANDS
from vae_jax.cli.parsing import parse
from vae_jax.cli.stop_signals import stop_requests
from vae_jax.vae.config.presets import PRESETS
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.runs.schema_version import SCHEMA_VERSION
from vae_jax.vae.training.training_loop import abstract_state

SMALL = ("--data", "digits", "--hidden-sizes", "16", "--latent-size", "3", "--batch-size", "100")


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def called(monkeypatch, tmp_path):
    """A command without figures, as its exit code and the lines of standard error."""
    monkeypatch.setattr("vae_jax.cli.plot.save_figures", lambda *_, **__: None)

    def call(*arguments):
        process = run_command(*arguments, cwd=tmp_path)
        return process.returncode, process.stderr.splitlines()

    return call


def last_state(path):
    folder = RunFolder(path)
    images = folder.read_config()["images"]
    like = abstract_state(folder.experiment(), images["num_train"], tuple(images["shape"]))
    return Checkpoints(folder.checkpoints).restore_latest(like, on_damage=lambda line: pytest.fail(line))


def lasting(path):
    """The rows of metrics.jsonl without the speed and what depends on it."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second", "sha256")}
        for row in rows
    ]


def assert_same_end(path, other):
    found, expected = last_state(path), last_state(other)
    assert found.step == expected.step
    assert found.score == expected.score
    chex.assert_trees_all_equal(found.state, expected.state, strict=True)
    assert lasting(path) == lasting(other)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, run_process("train", *SMALL, "--num-epochs", "2", "--out", "run", cwd=folder)


def test_a_run_prints_and_saves_its_results(trained):
    folder, process = trained
    assert process.returncode == 0, process.stderr
    saved = {path.name for path in (folder / "run").iterdir()}
    assert saved == {"config.json", "metrics.jsonl", "metrics.csv", "checkpoints", "figures", "summary.json"}
    assert list((folder / "run/figures").glob("*.png"))
    assert max(map(len, (process.stdout + process.stderr).splitlines())) <= 80
    for said in ("test ELBO", "reconstruction", "KL", "Active units", "299 test images", "Saved in run"):
        assert said in process.stdout
    assert re.search(r"^ +2 .* ± ", process.stderr, re.MULTILINE)


def test_the_summary_says_what_its_numbers_are_of(trained):
    folder, _ = trained
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["test_elbo"] == pytest.approx(summary["test_reconstruction"] - summary["test_kl"], rel=1e-5)
    assert 0 < summary["test_elbo_se"] < 1
    assert 0 <= summary["active_units"] <= summary["num_latents"] == len(summary["kl_by_latent"]) == 3
    expected = {
        "split": "test", "binarization": "stochastic", "binarization_seed": 0, "likelihood": "bernoulli",
        "num_images": 299, "checkpoint": "best", "num_epochs": 2, "step": 28, "num_seeds": 1,
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == expected


def test_the_metrics_are_saved_by_epoch(trained):
    folder, _ = trained
    rows = lasting(folder / "run")
    assert [row["epoch"] for row in rows] == [1, 2]
    with (folder / "run/metrics.csv").open() as file:
        assert [float(row["validation_elbo"]) for row in csv.DictReader(file)] == [
            row["validation_elbo"] for row in rows
        ]


@pytest.mark.slow
def test_events_for_tensorboard_hold_every_metric(called, tmp_path):
    code, _ = called("train", *SMALL, "--num-epochs", 1, "--tensorboard", "--out", "run")
    assert code == 0
    (events,) = (tmp_path / "run/events").iterdir()
    content = events.read_bytes()
    (row,) = lasting(tmp_path / "run")
    written = [name for name, value in row.items() if value is not None]
    assert len(written) > 10
    assert all(name.encode() in content for name in written)


def test_the_saved_command_line_repeats_the_run_which_may_be_stopped_and_resumed(trained):
    folder, _ = trained
    _, *saved = shlex.split(json.loads((folder / "run/config.json").read_text())["command_line"])
    stopped = run_command(*saved, "--out", "again", "--stop-after", "1", cwd=folder)
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped after 1 epoch" in stopped.stdout
    assert not (folder / "again/summary.json").exists()
    (hint,) = re.findall("vae-jax (train --resume .*) continues it", stopped.stdout)
    resumed = run_command(*shlex.split(hint), cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(folder / "again", folder / "run")
    summaries = [json.loads((folder / name / "summary.json").read_text()) for name in ("run", "again")]
    assert summaries[0] == summaries[1]


@pytest.mark.slow
def test_more_epochs_of_a_finished_run_are_those_of_a_longer_one(trained):
    folder, _ = trained
    for arguments in ((*SMALL, "--num-epochs", "1", "--out", "short"), ("--resume", "short", "--num-epochs", "2")):
        process = run_command("train", *arguments, cwd=folder)
        assert process.returncode == 0, process.stderr
    assert_same_end(folder / "short", folder / "run")
    experiments = [RunFolder(folder / name).experiment() for name in ("short", "run")]
    assert experiments[0] == experiments[1]
    assert json.loads((folder / "short/summary.json").read_text())["num_epochs"] == 2


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folders of two runs that are stopped after an epoch, the second with a schedule of its learning rate."""
    folder = tmp_path_factory.mktemp("stopped")
    common = ["train", *SMALL, "--num-epochs", "2", "--stop-after", "1", "--seconds-between-checkpoints", "0"]
    assert run_command(*common, "--out", "run", cwd=folder).returncode == 0
    assert run_command(*common, "--learning-rate-schedule", "cosine", "--out", "cosine", cwd=folder).returncode == 0
    shutil.copytree(folder / "run", folder / "unsaved", ignore=shutil.ignore_patterns("checkpoints"))
    np.savez(folder / "few.npz", train_images=np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4))
    return folder


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(called, stopped, tmp_path):
    shutil.copytree(stopped / "run", tmp_path / "run")
    newest = tmp_path / "run/checkpoints/14"
    file = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    code, errors = called("train", "--resume", "run", "--stop-after", 1)
    assert code == 0
    (warning,) = [line for line in errors if line.startswith("vae-jax: warning: ")]
    assert re.search(r"checkpoint of step 14 is damaged: .*; step \d+ \(.*\) is used instead", warning)
    assert_same_end(tmp_path / "run", stopped / "run")


def test_a_run_whose_every_checkpoint_is_damaged_is_not_begun_anew(called, stopped, tmp_path):
    shutil.copytree(stopped / "run", tmp_path / "run")
    manifests = list((tmp_path / "run/checkpoints").glob("*/manifest.json"))
    for manifest in manifests:
        manifest.write_text("{")
    code, errors = called("train", "--resume", "run")
    assert code == 1
    assert re.search("CheckpointError: no checkpoint in .*run/checkpoints can be restored: .*manifest", errors[-1])
    assert {manifest.read_text() for manifest in manifests} == {"{"}


DIVERGING = (*SMALL, "--optimizer", "sgd", "--learning-rate", "1e30", "--out", "run")
DIVERGED = r"vae-jax: error: Diverged: the \w+ was -?(nan|inf) by step 2 \(epoch 1, batch 2 of 14\): lower .* anew; "


def test_a_diverging_run_ends_in_one_line_and_its_last_good_checkpoint_is_used(called, tmp_path):
    code, errors = called("train", *DIVERGING, "--seconds-between-checkpoints", 0)
    assert code == 1
    assert re.fullmatch(f"{DIVERGED}the checkpoint of step 1 is kept, but resuming from it would .* again", errors[-1])
    assert last_state(tmp_path / "run").step == 1
    code, errors = called("train", *SMALL, "--out", "run")
    assert code == 2
    assert "--out must be a folder without a run, got run: name another, or use --resume" in errors[-1]


def test_a_folder_in_which_nothing_was_saved_is_trained_into_again(called, tmp_path):
    code, errors = called("train", *DIVERGING)
    assert code == 1
    assert re.fullmatch(f"{DIVERGED}no checkpoint had been saved", errors[-1])
    assert called("train", *SMALL, "--out", "run", "--stop-after", 1)[0] == 0
    assert RunFolder(tmp_path / "run").experiment().training.learning_rate == 1e-3
    assert last_state(tmp_path / "run").step == 14


REFUSED = {
    "train another": "the preset must be one of bernoulli-256-50, .*, got another: use one of these",
    "train --another 1": "Unrecognized options: --another, 1: vae-jax train --help lists the options",
    "train --stop-after 1 iwae-1l": "a preset must come right after the word train, got iwae-1l later: write",
    "train iwae-1l --resume {runs}/run": "a preset must be left out of a run that is resumed, got iwae-1l: leave it",
    "train --alpha 0.3": "--alpha must be left out with --objective elbo, where it has no effect, got 0.3: leave it",
    "train --iwae-gradient vimco": "--iwae-gradient must be left out with --objective elbo, .* choose --objective iwae",
    "train --top-latent-size 3": "--top-latent-size must be left out with --network mlp, .* --network hierarchical",
    "train iwae-1l --optimizer sgd --adam-b1 0.5": "--adam-b1 must be left out with --optimizer sgd, .*, got 0.5",
    "train --out {runs}/run": "--out must be a folder without a run, got .*/run: name another, or use --resume",
    "train --out {runs}/unsaved": "--out must be .*, got .*/unsaved with the metrics of one that saved no checkpoint",
    "train --out file/below": "--out must be a folder that can be written to, got file/below",
    "train --stop-after 0": "--stop-after must be at least 1, got 0",
    "train --seconds-between-checkpoints nan": "--seconds-between-checkpoints must be at least 0, got nan",
    "train --seed -1": "--seed must be from 0 to .*, got -1",
    "train --binarization none": "binarization must be .*, got none",
    "train gaussian-20-5 --binarization fixed": "binarization must be none .*, got fixed",
    "train --num-epochs 0": "--num-epochs must be at least 1, got 0",
    "train --learning-rate nan": "--learning-rate must be .*, got nan",
    "train --optimizer another": "--optimizer",
    "train --data missing": "data must be .*, got 'missing', which does not exist",
    "train --num-validation 1": "--num-validation must be 0 or at least 2, got 1: an error needs two images",
    "train --data {runs}/few.npz": "--data must have at least 2 test images, got 1 .*: an error needs two",
    "train --num-validation 1498": "--num-validation must be from 0 to 1497, got 1498",
    "train --resume": "--resume",
    "train --resume missing": "missing must be the folder of a run, got one without config.json",
    "train --resume {runs}/run --out other": "--out must be left out of a run that is resumed, got other",
    "train --resume {runs}/run --latent-size 4": "--latent-size must be 3 as in the run that is resumed, got 4",
    "train --resume {runs}/run --seed 4": "--seed must be 0 as in the run that is resumed, got 4: leave it out",
    "train --resume {runs}/run --num-epochs 1": "--num-epochs must be at least the run's 2, got 1: --stop-after",
    "train --resume {runs}/cosine --num-epochs 3": "--num-epochs must stay 2, got 3: a schedule .* depends on it",
}


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("arguments", REFUSED)
def test_misuse_ends_with_one_line_and_changes_nothing(arguments, called, stopped, tmp_path):
    (tmp_path / "file").touch()
    before = everything(tmp_path), everything(stopped)
    given = shlex.split(arguments.format(runs=stopped))
    digits = () if "--data" in given or "--resume" in given else ("--data", "digits")
    out = () if "--out" in given or "--resume" in given else ("--out", "made/run")
    code, errors = called(*given, *digits, *out)
    assert code == 2
    # A line before it may say which images are being loaded.
    assert re.search(f"^vae-jax: error: .*{REFUSED[arguments]}", errors[-1])
    assert not any("Traceback" in line for line in errors)
    assert (everything(tmp_path), everything(stopped)) == before


def test_misuse_is_told_where_standard_output_has_no_boxes_too(tmp_path):
    environment = settings_of_process(tmp_path)
    environment["env"] |= {"PYTHONIOENCODING": "ascii"}
    process = subprocess.run(words_of_process("train", "--another", "1"), capture_output=True, **environment)
    assert process.returncode == 2
    assert "vae-jax: error: Unrecognized options: --another" in process.stderr


def test_resume_takes_its_folder_after_an_equals_sign_too(called, stopped):
    code, errors = called("train", f"--resume={stopped}/run", "--latent-size", 4)
    assert code == 2
    assert "--latent-size must be 3 as in the run that is resumed, got 4" in errors[-1]


def test_a_run_of_a_preset_that_is_no_more_is_resumed_too(called, stopped, tmp_path):
    shutil.copytree(stopped / "run", tmp_path / "run")
    rewrite(tmp_path / "run/config.json", lambda content: content.update(preset="forgotten"))
    assert called("train", "--resume", "run", "--stop-after", 1)[0] == 0
    assert_same_end(tmp_path / "run", stopped / "run")


@pytest.mark.parametrize("command", ["train --resume", "evaluate", "sample", "reconstruct", "encode", "plot"])
def test_a_run_of_another_version_is_refused_by_every_command_that_reads_one(called, stopped, tmp_path, command):
    shutil.copytree(stopped / "run", tmp_path / "run")
    file = tmp_path / "run/config.json"
    content = json.loads(file.read_text())
    for version, advice in ((None, "train anew, or use"), (SCHEMA_VERSION + 1, "update vae_jax")):
        file.write_text(json.dumps(content | {"schema_version": version}))
        before = everything(tmp_path)
        code, errors = called(*command.split(), "run")
        assert code == 2
        got = version or "none, as from before there were any"
        expected = (
            f"must have schema_version {SCHEMA_VERSION}, which this version of vae_jax reads, got {got}: {advice}"
        )
        assert re.search(f"^vae-jax: error: .*run/config.json {expected}", errors[-1])
        assert everything(tmp_path) == before


def test_images_from_files_are_trained_on_and_refused_when_they_change(called, tmp_path):
    arrays = small_arrays()
    write_idx_folder(tmp_path / "images", arrays)
    small = ("--data", "images", "--hidden-sizes", 8, "--latent-size", 2, "--num-epochs", 2)
    assert called("train", *small, "--out", "run", "--stop-after", 1)[0] == 0
    before = everything(tmp_path / "run")
    arrays[0] = arrays[0].copy()
    arrays[0][0, 0, 0] ^= 1
    write_idx_folder(tmp_path / "images", arrays)
    code, errors = called("train", "--resume", "run")
    assert code == 2
    assert "the images must be those that the run began with" in errors[-1]
    assert everything(tmp_path / "run") == before


def test_a_damaged_file_of_images_ends_in_one_line_and_leaves_nothing(called, tmp_path):
    folder = write_idx_folder(tmp_path / "images", small_arrays())
    file = folder / f"{NAMES[0]}.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    code, errors = called("train", "--data", "images", "--out", "run")
    assert code == 1
    assert re.search("^vae-jax: error: .*train-images-idx3-ubyte.gz is damaged", errors[-1])
    assert not any("Traceback" in line for line in errors)
    assert not (tmp_path / "run").exists()


def test_a_first_request_is_noted_and_a_second_interrupts():
    with stop_requests() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requests() as should_stop:
        pass
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def started(*arguments, cwd):
    """A run in the background of which at least an epoch is done."""
    process = subprocess.Popen(
        words_of_process(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings_of_process(cwd)
    )
    metrics = cwd / "run/metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_is_saved_and_says_how_to_go_on(number, tmp_path, called):
    process = started("train", *SMALL, "--num-epochs", "1000000", "--out", "run", cwd=tmp_path)
    begin = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < 10
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "vae-jax: stopped and saved: vae-jax train --resume run continues it"
    assert output == ""
    rows = lasting(tmp_path / "run")
    assert last_state(tmp_path / "run").step // 14 == len(rows) >= 1
    assert not (tmp_path / "run/summary.json").exists()
    code, _ = called("train", "--resume", "run", "--stop-after", len(rows) + 1)
    assert code == 0
    assert lasting(tmp_path / "run")[: len(rows)] == rows
    assert len(lasting(tmp_path / "run")) == len(rows) + 1


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_the_uninterrupted_one(tmp_path):
    arguments = ("train", *SMALL, "--num-epochs", "60")
    assert run_command(*arguments, "--out", "whole", cwd=tmp_path).returncode == 0
    generator, num_kills = np.random.default_rng(), 0
    process = started(*arguments, "--out", "run", "--seconds-between-checkpoints", "0", cwd=tmp_path)
    while True:
        try:
            # Four in five kills hit the training; with the fifth the run may end.
            process.communicate(timeout=generator.uniform(0, 1.5) if num_kills < 5 else None)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            num_kills += 1
        process = started("train", "--resume", "run", "--seconds-between-checkpoints", "0", cwd=tmp_path)
    assert process.returncode == 0
    assert num_kills >= 2
    assert_same_end(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_several_seeds_are_trained_at_once_and_summed_up_with_an_interval(called, tmp_path):
    assert called("train", *SMALL, "--num-epochs", 1, "--num-seeds", 3, "--out", "run")[0] == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["num_seeds"] == len(summary["test_elbo_by_seed"]) == len(summary["active_units"]) == 3
    low, high = summary["test_elbo_interval"]
    assert low < summary["test_elbo"] < high
    assert summary["test_elbo"] == pytest.approx(np.mean(summary["test_elbo_by_seed"]))
    with (tmp_path / "run/metrics.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_help_of_every_command_needs_no_jax(tmp_path):
    script = (
        "import sys\nfrom vae_jax.cli import main\n"
        f"for command in {sorted(COMMANDS)} + ['']:\n"
        "    try: main([*filter(None, [command]), '--help'])\n"
        "    except SystemExit as exit_: assert exit_.code in (0, None)\n"
        "print(sorted(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, **settings_of_process(tmp_path))
    assert process.returncode == 0, process.stderr
    *text, loaded = process.stdout.splitlines()
    assert sum("usage: vae-jax" in line for line in text) == len(COMMANDS) + 1
    assert "--num-epochs" in process.stdout
    for module in ("jax", "numpy", "matplotlib", "numpyro", "flax", "optax", "orbax", "tensorflow_datasets", "sklearn"):
        assert f"'{module}'" not in loaded


def test_help_of_training_names_the_presets_and_says_when_settings_apply(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parse(["train", "--help"])
    text = capsys.readouterr().out
    assert text.startswith("usage: vae-jax train [-h] [TRAIN OPTIONS] [PRESET]\n")
    for name in PRESETS:
        assert f" {name}: " in text
    assert max(map(len, text.splitlines())) <= 80
    shown = " ".join(re.sub(r"[│─╭╮╰╯]", " ", text).split())
    ramp = "Share of the training, or of a cycle, in which beta grows. Applies with --objective elbo, geometric_js or "
    assert f"--beta-ramp FLOAT {ramp}dual_geometric_js, and --beta-schedule linear or cyclical. (default: 0.5)" in shown


def test_every_preset_is_a_default_of_its_own(tmp_path):
    script = (
        "import sys\nfrom vae_jax.cli.parsing import parse\n"
        f"for name in {sorted(PRESETS)}:\n"
        "    command = parse(['train', name, '--num-epochs', '7'])\n"
        "    print(command.preset, command.experiment)\n"
        "assert 'jax' not in sys.modules"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, **settings_of_process(tmp_path))
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    for line, name in zip(lines, sorted(PRESETS), strict=True):
        assert line.startswith(f"{name} Experiment(")
        expected = re.sub("num_epochs=[0-9]+", "num_epochs=7", repr(PRESETS[name]))
        assert line == f"{name} {expected}"
