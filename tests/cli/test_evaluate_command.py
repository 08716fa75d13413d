import json
import math
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from commands import run_command
from sealed_files import rewrite, without_seal
from vae_jax.cli.number_formats import duration
from vae_jax.vae.config.experiment import Experiment
from vae_jax.vae.data.binarization import prepared
from vae_jax.vae.data.datasets import load_images
from vae_jax.vae.results import image_likelihood
from vae_jax.vae.results.image_likelihood import image_log_evidence, importance_sampling_seconds, model_log_evidence
from vae_jax.vae.results.score_summary import scores_of
from vae_jax.vae.results.trained_model import TrainedModel, load_trained
from vae_jax.vae.runs.checkpoints import Checkpoints
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.training.training_loop import Learned, abstract_state

SMALL = ["--data", "digits", "--hidden-sizes", "16", "--latent-size", "3", "--batch-size", "100", "--num-epochs", "3"]


@pytest.fixture(autouse=True, scope="module")
def _without_figures():
    """NumPyro's distributions of vectors promote ranks in drawing; no figures."""
    with jax.numpy_rank_promotion("allow"), pytest.MonkeyPatch.context() as patched:
        patched.setattr("vae_jax.cli.plot.save_figures", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run, and of one of two seeds that has no validation images."""
    folder = tmp_path_factory.mktemp("runs")
    single = ["--seconds-between-checkpoints", 0, "--out", "run"]
    several = ["--num-seeds", 2, "--num-validation", 0, "--stop-after", 1, "--out", "seeds"]
    for arguments in (single, several):
        process = run_command("train", *SMALL, *arguments, cwd=folder)
        assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def evaluated(runs, tmp_path, monkeypatch):
    """The command on a copy of the run: its exit code, standard output and error, and what summary.json holds after."""
    shutil.copytree(runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")

    def call(*arguments, name="run"):
        process = run_command("evaluate", name, *arguments, cwd=tmp_path / "runs")
        path = tmp_path / "runs" / name / "summary.json"
        return (
            process.returncode,
            process.stdout,
            process.stderr,
            without_seal(path) if path.exists() else None,
        )

    return call


FIELDS = {
    "test_elbo", "test_elbo_se", "test_reconstruction", "test_kl", "active_units", "kl_by_latent", "nll", "nll_se",
    "nll_monte_carlo_se", "nll_monte_carlo_bias", "nll_monte_carlo_reliable", "nll_upper_bound", "nll_samples_needed",
    "effective_sample_size", "effective_sample_size_min", "num_importance_samples",
    "nll_pareto_k_median", "nll_pareto_k_max", "nll_share_reliable",
    "binarization", "binarization_seed", "split", "num_images", "likelihood", "checkpoint", "step", "evaluation",
}  # fmt: skip


def test_the_scores_are_printed_and_saved(evaluated, runs):
    before = without_seal(runs / "run/summary.json")
    code, output, errors, summary = evaluated("--num-importance-samples", 60)
    assert code == 0, errors
    assert set(summary) >= FIELDS
    # Training has scored the same model with the same draws.
    assert {name: summary[name] for name in before} == before
    assert summary["num_importance_samples"] == 60
    assert (summary["split"], summary["binarization"], summary["num_images"]) == ("test", "stochastic", 299)
    assert summary["nll"] < -summary["test_elbo"]
    assert 0 < summary["nll_monte_carlo_se"] < summary["nll_se"] < 1
    assert 1 <= summary["effective_sample_size_min"] <= summary["effective_sample_size"] <= 60
    assert summary["nll_pareto_k_median"] <= summary["nll_pareto_k_max"]
    num_reliable = round(299 * summary["nll_share_reliable"])
    assert 0 <= num_reliable <= 299
    assert f"{num_reliable} of the 299 images' estimates are reliable: effective sample size at least 10" in " ".join(
        output.split()
    )
    # With 60 samples of each image the error is unknown: what is known is printed.
    assert not summary["nll_monte_carlo_reliable"]
    assert summary["nll"] < summary["nll_upper_bound"] < summary["nll"] + 0.02
    assert "? The Monte Carlo error cannot be believed" in output
    assert f"--num-importance-samples {summary['nll_samples_needed']:,} at least" in " ".join(output.split())
    assert max(map(len, (output + errors).splitlines())) <= 80
    for said in ("test ELBO", "test NLL, k = 60", "Active units", "KL by latent", "299 test images, binarized once"):
        assert said in output
    assert f"{summary['nll']:.1f}" in output
    assert "seconds" not in output
    assert output.endswith("Saved in run/summary.json\n")


def departing():
    """The lines that the run's evaluations.jsonl holds."""
    return [json.loads(line) for line in Path("run/evaluations.jsonl").read_text().splitlines()]


DEPARTURES = {
    "--num-images 50 --binarization threshold": ["50 of 299 images", "--binarization threshold"],
    "--num-images 298": ["298 of 299 images"],
    "--seed 1": ["--seed 1"],
    "--checkpoint latest": ["--checkpoint latest"],
    "--num-importance-samples 5": ["k = 5, below its 20"],
}


@pytest.mark.parametrize("arguments", DEPARTURES)
def test_scores_of_less_or_of_something_else_leave_those_of_the_run_alone(arguments, evaluated):
    assert evaluated("--num-importance-samples", 20)[0] == 0
    before = Path("run/summary.json").read_bytes()
    printed = []
    # Twice: one does not replace the other.
    for number in (1, 2):
        code, output, errors, _ = evaluated("--num-importance-samples", 0, *arguments.split())
        assert code == 0, errors
        assert Path("run/summary.json").read_bytes() == before
        line = departing()[-1]
        assert len(departing()) == number
        assert line["departures"] == DEPARTURES[arguments]
        assert f" {math.trunc(line['test_elbo'])}." in output
        said = f"Added to run/evaluations.jsonl, not to summary.json: {', '.join(DEPARTURES[arguments])}"
        assert " ".join(output.split()).endswith(said)
        printed.append(output)
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    "arguments", ["--num-images 299", "--num-images 1000", "--binarization stochastic", "--seed 0"]
)
def test_what_changes_nothing_is_no_departure(arguments, evaluated):
    code, output, _, summary = evaluated("--num-importance-samples", 5, *arguments.split())
    assert code == 0
    assert "nll" in summary
    assert "Saved in run/summary.json" in output
    assert not Path("run/evaluations.jsonl").exists()


def test_a_run_s_likelihood_is_kept_by_an_evaluation_without_one_and_replaced_by_a_better(evaluated):
    first = evaluated("--num-importance-samples", 20)[3]
    code, output, _, second = evaluated("--num-importance-samples", 0)
    assert code == 0
    assert second == first
    assert output.endswith("Saved in run/summary.json, which keeps its NLL (k = 20)\n")
    third = evaluated("--num-importance-samples", 30)[3]
    assert third["num_importance_samples"] == 30
    assert third["nll"] != first["nll"]
    assert evaluated("--num-importance-samples", 30)[1].endswith("Saved in run/summary.json\n")


@pytest.mark.parametrize("change", [{"step": 14}, {"binarization_seed": 7}, {"num_images": 50}, None])
def test_the_likelihood_of_another_model_or_of_other_images_is_not_kept(change, evaluated):
    summary = evaluated("--num-importance-samples", 20)[3]
    if change is None:
        Path("run/summary.json").write_text("{")
    else:
        rewrite(Path("run/summary.json"), lambda content: content.update(change))
    code, output, errors, summary = evaluated("--num-importance-samples", 0)
    assert code == 0
    assert ("warning: run/summary.json must be JSON" in errors) == (change is None)
    assert "nll" not in summary
    assert "num_importance_samples" not in summary
    assert output.endswith("Saved in run/summary.json\n")


def test_going_on_with_a_finished_run_keeps_its_likelihood(evaluated, tmp_path):
    *_, before = evaluated("--num-importance-samples", 10)
    assert run_command("train", "--resume", "run", cwd=tmp_path / "runs").returncode == 0
    assert without_seal(Path("run/summary.json")) == before


def test_the_seed_of_the_draw_that_is_scored_is_recorded(evaluated):
    rewrite(Path("run/config.json"), lambda content: content["experiment"]["data"].update(binarization_seed=5))
    for manifest in Path("run/checkpoints").glob("*/manifest.json"):
        rewrite(manifest, lambda content: content["about"].clear())
    code, output, _, summary = evaluated("--num-importance-samples", 0)
    assert code == 0
    assert (summary["binarization"], summary["binarization_seed"]) == ("stochastic", 5)
    assert "binarized once for scores (seed 5)" in output
    trained = load_trained(RunFolder(Path("run")), on_damage=pytest.fail)
    pixels = prepared(load_images("digits").test.images, "fixed", 5, stream=2)
    scores = scores_of(trained, pixels, jax.random.key(0))
    assert summary["test_elbo"] == pytest.approx(float(scores.elbo.mean()), rel=1e-5)


def test_the_likelihood_is_that_of_the_test_images(evaluated):
    code, _, errors, summary = evaluated("--num-importance-samples", 200)
    assert code == 0, errors
    trained = load_trained(RunFolder(Path("run")), on_damage=pytest.fail)
    pixels = prepared(load_images("digits").test.images, "fixed", 0, stream=2)
    other = image_log_evidence(
        trained.architecture, trained.params, pixels, jax.random.key(9), num_importance_samples=200
    )
    difference = summary["nll"] + float(np.mean(other.log_evidence))
    assert abs(difference) < 6 * summary["nll_monte_carlo_se"]
    assert summary["nll_monte_carlo_se"] < 0.1


def test_an_estimate_of_the_time_comes_first(evaluated, monkeypatch):
    """Before anything is scored."""
    monkeypatch.setattr("vae_jax.vae.results.score_summary.make_score", lambda *_, **__: 1 / 0)
    code, output, errors, _ = evaluated("--estimate", "--num-importance-samples", 10)
    assert code == 1
    assert "ZeroDivisionError" in errors
    assert re.fullmatch(
        r"the likelihood of 299 images at k = 10 will take about [\d.]+ (seconds|minutes|hours)\n", output
    )


@pytest.mark.parametrize(("num_images", "size"), [(4, 3), (250, 2500), (7000, 20_000)])
def test_the_time_is_told_from_a_small_part_at_the_speed_of_that(num_images, size, monkeypatch):
    """The clock moves by a second for a sample of an image, and by an hour for compilation."""
    now, calls = [0.0], []

    def sums(*arguments, num_importance_samples, num_images, capacity):
        assert capacity == size
        now[0] += 3600 * (not calls) + num_importance_samples * num_images * seconds_a_sample
        calls.append(num_importance_samples * num_images)

    monkeypatch.setattr(image_likelihood, "image_weight_sums", sums)
    monkeypatch.setattr(image_likelihood.time, "perf_counter", lambda: now[0])
    model = TrainedModel(Experiment(), (2, 2), 0, Learned({}, None))
    pixels = np.zeros((num_images, 4), np.uint8)
    for seconds_a_sample in (1.0, 1e-9):
        calls.clear()
        told = importance_sampling_seconds(model, pixels, num_importance_samples=size)
        whole = num_images * min(size, 1000) * math.ceil(size / 1000)
        assert told == pytest.approx(whole * seconds_a_sample)
        assert calls[0] == 0
        # A slow model is stopped after the first ten images, a fast one is not timed for long either.
        assert sum(calls) <= max(min(num_images, 10) * min(size, 1000), (0.1 * whole + 1e5) * (seconds_a_sample < 1))


def test_an_estimate_compiles_the_program_that_the_likelihood_runs(evaluated):
    trained = load_trained(RunFolder(Path("run")), on_damage=pytest.fail)
    pixels = prepared(load_images("digits").test.images, "fixed", 0, stream=2)
    importance_sampling_seconds(trained, pixels, num_importance_samples=1500)
    before = image_likelihood._weight_sums._cache_size()
    model_log_evidence(trained, pixels[:150], jax.random.key(0), num_importance_samples=2000)
    assert image_likelihood._weight_sums._cache_size() == before
    model_log_evidence(trained, pixels[:30], jax.random.key(0), num_importance_samples=2000)
    assert image_likelihood._weight_sums._cache_size() == before + 1


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 seconds"), (119.0, "119.0 seconds"), (120.0, "2.0 minutes"), (9e3, "2.5 hours")]
)
def test_durations_are_in_the_unit_that_reads_best(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(("split", "num_images"), [("validation", 124), ("train", 1374)])
def test_another_split_is_scored_as_binary_images_too(evaluated, runs, split, num_images):
    before = Path("run/summary.json").read_bytes()
    code, output, errors, _ = evaluated("--split", split, "--num-importance-samples", 0)
    assert code == 0, errors
    # The scores of the test images stay what they were.
    assert Path("run/summary.json").read_bytes() == before
    summary = json.loads(Path(f"run/summary_{split}.json").read_text())
    assert (summary["split"], summary["num_images"]) == (split, num_images)
    assert f"{num_images:,} {split} images, binarized once" in output
    last = RunFolder(runs / "run").rows()[-1]
    # The validation images are scored with other draws, the training images after the epoch and not during it.
    assert summary[f"{split}_elbo"] == pytest.approx(last["validation_elbo"], abs=0.6)
    assert "NLL" not in output


def test_only_the_first_images_are_scored_on_request(evaluated):
    code, output, _, _ = evaluated("--num-images", 7, "--num-importance-samples", 5)
    assert code == 0
    assert departing()[0]["num_images"] == 7
    assert "7 test images" in output


def test_another_seed_draws_anew_and_the_same_one_repeats(evaluated):
    for seed in (0, 0, 1):
        assert evaluated("--num-importance-samples", 5, "--num-images", 20, "--seed", seed)[0] == 0
    first, again, other = (line["nll"] for line in departing())
    assert first == again != other


def test_another_binarization_is_scored_and_recorded(evaluated, runs):
    before = json.loads((runs / "run/summary.json").read_text())["test_elbo"]
    code, output, _, _ = evaluated("--binarization", "threshold", "--num-importance-samples", 5)
    assert code == 0
    (line,) = departing()
    assert line["binarization"] == "threshold"
    assert abs(line["test_elbo"] - before) > 0.02
    assert "binarized at one half" in output


def test_the_best_checkpoint_is_scored_or_on_request_the_latest(evaluated):
    folder = RunFolder(Path("run"))
    checkpoints = Checkpoints(folder.checkpoints)
    state = checkpoints.restore_latest(abstract_state(folder.experiment(), 1374, (8, 8)), on_damage=pytest.fail).state
    checkpoints.save(43, state, score=-1000.0)
    for arguments, which, step in ((), "best", 42), (("--checkpoint", "latest"), "latest", 43):
        code, _, _, summary = evaluated(*arguments, "--num-importance-samples", 0)
        assert code == 0
        scored = summary if which == "best" else departing()[-1]
        assert (scored["checkpoint"], scored["step"]) == (which, step)


def test_several_seeds_have_a_mean_and_an_interval(evaluated):
    code, output, errors, summary = evaluated("--num-importance-samples", 5, name="seeds")
    assert code == 0, errors
    for name in ("test_elbo", "nll"):
        values = summary[f"{name}_by_seed"]
        assert len(values) == 2
        assert values[0] != values[1]
        assert summary[name] == pytest.approx(np.mean(values))
        assert summary[f"{name}_se"] == pytest.approx(abs(values[0] - values[1]) / 2)
        low, high = summary[f"{name}_interval"]
        assert low < summary[name] < high
    assert "Means of 2 models" in output
    assert max(map(len, output.splitlines())) <= 80


def test_other_images_than_those_of_the_run_are_told_of(evaluated, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", train_images=pixels, test_images=pixels[:20])
    before = Path("run/summary.json").read_bytes()
    code, _, errors, _ = evaluated("--data", tmp_path / "other.npz", "--num-importance-samples", 0)
    assert code == 0
    assert "vae-jax: warning: the images from NumPy file" in errors
    assert Path("run/summary.json").read_bytes() == before
    (line,) = departing()
    assert (line["num_images"], line["departures"]) == (20, ["other images"])
    assert "other.npz" in line["source"]


def test_a_damaged_best_checkpoint_is_told_of(evaluated, tmp_path):
    newest = max((tmp_path / "runs/run/checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    (newest / "manifest.json").write_text("{")
    code, _, errors, summary = evaluated("--num-importance-samples", 0)
    assert code == 0
    assert f"vae-jax: warning: checkpoint of step {newest.name} is damaged" in errors
    assert summary["step"] < int(newest.name)


def test_without_an_undamaged_checkpoint_there_is_no_score(evaluated, tmp_path):
    for manifest in (tmp_path / "runs/run/checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    code, output, errors, _ = evaluated("--num-importance-samples", 0)
    assert code == 1
    assert output == ""
    assert re.search(
        "^vae-jax: error: CheckpointError: no checkpoint in .* can be restored: .*", errors.splitlines()[-1]
    )


REFUSED = {
    "missing": "missing must be the folder of a run, got one without config.json",
    "run --num-importance-samples -1": "--num-importance-samples must be at least 0, got -1",
    "run --num-images 1": "--num-images must be at least 2, got 1",
    "run --seed -1": "--seed must be from 0 to 4,294,967,295, got -1",
    "run --split another": "--split",
    "run --checkpoint another": "--checkpoint",
    "run --another": "--another",
    "run --binarization none": "binarization must be stochastic, fixed or threshold under likelihood bernoulli",
    "run --data missing": "data must be .*, got 'missing', which does not exist",
    "seeds --split validation": "--split must have at least 2 images, got validation with 0",
    "damaged": "damaged/config.json must be JSON",
    "another": "another/config.json must have schema_version 2, .*, got none",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_misuse_ends_with_one_line_and_changes_nothing(arguments, runs):
    for name, content in (("damaged", "{"), ("another", '{"experiment": {"data": {}}}')):
        (runs / name).mkdir(exist_ok=True)
        (runs / name / "config.json").write_text(content)
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    process = run_command("evaluate", *shlex.split(arguments), cwd=runs)
    assert process.returncode == 2
    assert re.search(f"^vae-jax: error: .*{REFUSED[arguments]}", process.stderr.splitlines()[-1])
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
