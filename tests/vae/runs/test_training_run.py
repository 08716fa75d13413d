import copy
import csv
import math
import shutil
from collections import namedtuple
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.vae.config.experiment import DataConfig, Experiment, ModelConfig, ObjectiveConfig, TrainingConfig
from vae_jax.vae.data.image_data import Split, split_images
from vae_jax.vae.data.visible_images import visible_images
from vae_jax.vae.runs import step_pacing
from vae_jax.vae.runs.checkpoints import CheckpointError, Checkpoints
from vae_jax.vae.runs.divergence_watch import Diverged
from vae_jax.vae.runs.run_folder import RunFolder
from vae_jax.vae.runs.training_metrics import best_row
from vae_jax.vae.runs.training_run import Run
from vae_jax.vae.training import image_scores, training_loop
from vae_jax.vae.training.many_seeds import seed_mesh
from vae_jax.vae.training.training_loop import abstract_state
from vae_jax.vae.training.training_schedules import beta_at

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (300, 3, 4)).astype(np.uint8)
IMAGES = split_images("random", "random", {"train": Split(PIXELS, None)}, num_validation=40)
EXPERIMENT = Experiment(
    model=ModelConfig(latent_size=2, hidden_sizes=(4,)),
    training=TrainingConfig(num_epochs=4, batch_size=64, learning_rate=0.01),
)
STEPS = 4
"""Steps of an epoch: 210 images in batches of 64."""


@pytest.fixture(autouse=True, scope="module")
def _allow_rank_promotion():
    """NumPyro's distributions of vectors promote ranks in drawing."""
    with jax.numpy_rank_promotion("allow"):
        yield


def run_in(path, experiment=EXPERIMENT, images=IMAGES):
    folder = RunFolder(path)
    folder.write_config(experiment, {})
    return Run(experiment, images, folder, seed_mesh(experiment.num_seeds) if experiment.num_seeds > 1 else None)


def elsewhere(run, path):
    """The same run, compiled already, in a folder of its own."""
    other = copy.copy(run)
    other.folder = RunFolder(path)
    other.folder.write_config(run.experiment, {})
    other.checkpoints = Checkpoints(other.folder.checkpoints)
    return other


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    run = run_in(tmp_path_factory.mktemp("whole") / "run")
    assert run.train(run.start()).finished
    return run


@pytest.fixture
def single_steps(monkeypatch):
    """A check after every step."""
    monkeypatch.setattr(step_pacing, "SECONDS_BETWEEN_CHECKS", 0)
    monkeypatch.setattr(step_pacing, "FIRST_STEPS", 1)


def refuse(line):
    raise AssertionError(line)


def like(run):
    return abstract_state(run.experiment, run.num_images, IMAGES.shape)


def latest(run, on_damage=refuse):
    return run.checkpoints.restore_latest(like(run), on_damage=on_damage)


def best(run):
    return run.checkpoints.restore_best(like(run), on_damage=refuse)


assert_same = partial(chex.assert_trees_all_equal, strict=True)


def lasting(rows):
    """The metrics that must repeat."""
    return [
        {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")} for row in rows
    ]


def assert_same_run(run, whole):
    for restore in (latest, best):
        found, expected = restore(run), restore(whole)
        assert (found.step, found.score) == (expected.step, expected.score)
        assert_same(found.state, expected.state)
    assert lasting(run.folder.rows()) == lasting(whole.folder.rows())


METRICS = {
    "epoch", "step", "train_objective", "train_elbo", "train_reconstruction", "train_kl", "validation_elbo",
    "validation_elbo_se", "validation_reconstruction", "validation_kl", "active_units", "beta", "alpha",
    "learning_rate", "seconds", "images_per_second",
}  # fmt: skip


def test_a_run_writes_a_line_of_metrics_for_each_epoch(whole):
    rows = whole.folder.rows()
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 4), (2, 8), (3, 12), (4, 16)]
    for row in rows:
        assert set(row) == METRICS
        assert row["train_elbo"] == pytest.approx(row["train_reconstruction"] - row["train_kl"], rel=1e-5)
        assert row["validation_elbo"] == pytest.approx(
            row["validation_reconstruction"] - row["validation_kl"], rel=1e-5
        )
        assert 0 < row["validation_elbo_se"] < 1
        assert row["learning_rate"] == pytest.approx(0.01)
    assert rows[3]["validation_elbo"] > rows[0]["validation_elbo"]
    with (whole.folder.path / "metrics.csv").open() as file:
        assert [float(row["train_elbo"]) for row in csv.DictReader(file)] == [row["train_elbo"] for row in rows]


def test_the_training_metrics_are_means_over_all_images(whole):
    """Batches of 64, 64, 64 and 18 images: a mean of their means would be another."""
    state = latest(whole).state
    assert whole.folder.rows()[3]["train_elbo"] == pytest.approx(float(state.sums.elbo) / 210, rel=1e-6)
    assert -12 < whole.folder.rows()[3]["train_elbo"] < -8


def test_a_run_traces_its_training_and_its_scores_once_though_it_is_resumed(tmp_path, monkeypatch):
    chex.clear_trace_counter()
    make_step, score_image = training_loop._make_step, image_scores._score_image
    monkeypatch.setattr(training_loop, "_make_step", lambda *given: chex.assert_max_traces(make_step(*given), n=1))
    monkeypatch.setattr(image_scores, "_score_image", chex.assert_max_traces(score_image, n=1))
    run = run_in(tmp_path / "run")
    run.train(run.start(), stop_after=2)
    assert run.train(run.resume(refuse)).finished


@pytest.mark.parametrize("stops", [(1,), (2,), (1, 2, 3)])
def test_a_run_stopped_after_epochs_and_resumed_is_the_uninterrupted_one(whole, tmp_path, stops):
    run = elsewhere(whole, tmp_path)
    state = run.start()
    for stop in stops:
        outcome = run.train(state, stop_after=stop)
        assert not outcome.finished
        assert len(outcome.rows) == stop
        state = run.resume(refuse)
    assert run.train(state).finished
    assert_same_run(run, whole)


@pytest.mark.usefixtures("single_steps")
def test_a_run_stopped_within_epochs_and_resumed_is_the_uninterrupted_one(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    state, places = run.start(), []
    while True:
        looks = iter([False] * 3 + [True])
        outcome = run.train(state, should_stop=lambda looks=looks: next(looks))
        if outcome.finished:
            break
        places.append(latest(run).step)
        state = run.resume(refuse)
    assert places == [3, 6, 9, 12, 15]
    assert_same_run(run, whole)


class Killed(BaseException):
    """No code has a chance to clean up after it."""


@pytest.mark.usefixtures("single_steps")
def test_a_run_killed_anywhere_and_resumed_is_the_uninterrupted_one(whole, tmp_path, monkeypatch):
    run, generator = elsewhere(whole, tmp_path), np.random.default_rng(1)
    append_row, save = RunFolder.append_row, Checkpoints.save

    def append_half(folder, row):
        append_row(folder, row)
        file = folder.path / "metrics.jsonl"
        file.write_bytes(file.read_bytes()[: -int(generator.integers(1, 200))])
        raise Killed

    def save_then_die(*arguments, **score):
        save(*arguments, **score)
        die()

    def save_or_die(*arguments, **score):
        die()
        save(*arguments, **score)

    def die(*_):
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed

    deaths = (
        (RunFolder, "append_row", append_half),
        (Checkpoints, "save", save_then_die),
        (Checkpoints, "save", save_or_die),
    )
    num_deaths = 0
    for attempt in range(40):
        left = int(generator.integers(2, 8))
        state = run.resume(refuse) if run.checkpoints.steps() else run.start()
        with monkeypatch.context() as patched:
            if attempt < 9:
                patched.setattr(*deaths[attempt % 3])
            on_report = die if attempt % 3 == 0 else lambda _: None
            try:
                run.train(state, on_report=on_report, seconds_between_checkpoints=0.0)
                break
            except Killed:
                num_deaths += 1
    assert num_deaths >= 4
    assert_same_run(run, whole)


def test_a_run_that_died_before_its_first_checkpoint_leaves_no_metrics_to_the_next(whole, tmp_path):
    run = elsewhere(whole, tmp_path)

    def die(report):
        if report.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        run.train(run.start(), on_report=die, seconds_between_checkpoints=math.inf)
    assert len(run.folder.rows()) >= 2
    assert run.checkpoints.steps() == []
    run.train(run.start())
    assert_same_run(run, whole)


def test_a_finished_run_that_is_resumed_stays_as_it_is(whole, tmp_path):
    shutil.copytree(whole.folder.path, tmp_path / "run")
    run = elsewhere(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in run.folder.checkpoints.rglob("*") if path.is_file()}
    outcome = run.train(run.resume(refuse))
    assert outcome.finished
    assert_same_run(run, whole)
    assert {path: path.read_bytes() for path in run.folder.checkpoints.rglob("*") if path.is_file()} == before


def test_a_resumed_run_that_stops_at_once_keeps_the_score_of_its_checkpoint(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=2)
    before = best(run)
    run.train(run.resume(refuse), should_stop=lambda: True)
    assert (best(run).step, best(run).score) == (before.step, before.score)


def damage(run):
    """Flips a bit in the largest file of the newest checkpoint."""
    newest = max(run.folder.checkpoints.glob("[0-9]*"), key=lambda path: float(path.name))
    file = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.usefixtures("single_steps")
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_leads_to_the_same_end(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    looks = iter([False] * 9 + [True])
    run.train(run.start(), should_stop=lambda: next(looks), seconds_between_checkpoints=0.0)
    assert run.checkpoints.steps()[-2:] == [8, 9]
    damage(run)
    told = []
    state = run.resume(told.append)
    (line,) = told
    assert "step 9 is damaged" in line
    assert "step 8" in line
    assert int(state.step) == 8
    assert run.train(state).finished
    assert_same_run(run, whole)


@pytest.mark.usefixtures("single_steps")
def test_a_checkpoint_damaged_at_an_epochs_end_takes_the_metrics_of_the_epoch_with_it(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=3, seconds_between_checkpoints=0.0)
    assert len(run.folder.rows()) == 3
    damage(run)
    state = run.resume(lambda _: None)
    assert int(state.step) == 11
    assert len(run.folder.rows()) == 2
    run.train(state)
    assert_same_run(run, whole)


def test_a_run_without_an_undamaged_checkpoint_is_not_resumed(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=1)
    damage(run)
    with pytest.raises(CheckpointError, match="damaged"):
        run.resume(refuse)


def test_a_full_disk_keeps_the_last_good_checkpoint(whole, tmp_path, monkeypatch):
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=1)
    state = run.resume(refuse)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
        with pytest.raises(CheckpointError, match="bytes free"):
            run.train(state, stop_after=2)
    assert run.train(run.resume(refuse)).finished
    assert_same_run(run, whole)


@pytest.mark.usefixtures("single_steps")
def test_a_term_that_is_not_finite_stops_the_run_and_is_named(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=1)
    before = latest(run)
    state = run.resume(refuse)
    state.learned.model["decoder"]["head"]["bias"] = jnp.full(12, jnp.nan)
    message = r"the reconstruction was nan by step 5 \(epoch 2, batch 1 of 4\): lower"
    (run.folder.path / "metrics.csv").unlink()
    with pytest.raises(Diverged, match=message):
        run.train(state, seconds_between_checkpoints=0.0)
    assert (run.folder.path / "metrics.csv").exists()
    state = run.resume(refuse)
    assert_same(state, before.state)
    state.learned.model["encoder"]["loc_head"]["bias"] = jnp.full(2, 1e30)
    with pytest.raises(Diverged, match=r"the (reconstruction|kl) was -?(inf|nan) by step 5 \(epoch 2, batch 1 of 4\)"):
        run.train(state, seconds_between_checkpoints=0.0)
    assert run.checkpoints.steps() == [4]
    assert run.train(run.resume(refuse)).finished
    assert_same_run(run, whole)


@pytest.mark.usefixtures("single_steps")
def test_a_parameter_that_is_not_finite_stops_the_run_before_it_is_saved(whole, tmp_path):
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=1)
    state = run.resume(refuse)
    poisoned = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf) if leaf.ndim == 1 else leaf, state.optimizer)
    with pytest.raises(Diverged, match=r"a parameter was not finite by step 5 \(epoch 2, batch 1 of 4\)"):
        run.train(state._replace(optimizer=poisoned), seconds_between_checkpoints=0.0)
    assert run.checkpoints.steps() == [4]


def test_reports_tell_where_the_run_is(whole, tmp_path):
    run, reports = elsewhere(whole, tmp_path), []
    run.train(run.start(), on_report=reports.append)
    places = [report.epoch - 1 + report.share for report in reports]
    assert places == sorted(set(places))
    assert places[0] == 0.25
    assert places[-1] == 4
    ends = [report for report in reports if report.row is not None]
    assert [report.epoch for report in ends] == [1, 2, 3, 4]
    for report in ends:
        assert report.elbo == pytest.approx(report.row["train_elbo"], rel=1e-6)
        assert report.elbo == pytest.approx(report.reconstruction - report.kl, rel=1e-5)
    # The mean over 64 images of an epoch is near that over all: neither a sum nor a mean over slots.
    assert reports[0].elbo == pytest.approx(reports[1].elbo, rel=0.1)


STILL = replace(
    EXPERIMENT, training=replace(EXPERIMENT.training, num_epochs=9, optimizer="sgd", learning_rate=0.0, patience=2)
)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """A run that learns nothing, so that no epoch is better than the first."""
    run = run_in(tmp_path_factory.mktemp("still") / "run", STILL)
    return run, run.train(run.start())


@pytest.mark.slow
def test_a_run_without_progress_stops_when_its_patience_ends(still):
    run, outcome = still
    assert outcome.finished
    assert [row["epoch"] for row in run.folder.rows()] == [1, 2, 3]
    assert len({row["validation_elbo"] for row in run.folder.rows()}) == 1
    assert len({row["train_elbo"] for row in run.folder.rows()}) == 3


def test_the_best_checkpoint_is_that_of_the_first_of_the_best_epochs(still):
    run, _ = still
    found = best(run)
    assert (found.step, int(found.state.step)) == (4, 4)
    assert found.score == run.folder.rows()[0]["validation_elbo"]
    assert latest(run).step == 12


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_stops_when_the_patience_of_the_whole_run_ends(still, tmp_path, stop):
    whole, _ = still
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), stop_after=stop)
    assert run.train(run.resume(refuse)).finished
    assert_same_run(run, whole)
    assert run.train(run.resume(refuse)).finished
    assert_same_run(run, whole)


def test_the_best_state_is_kept_though_it_is_saved_later(still, tmp_path):
    """The best state is remembered at its epoch's end, and its buffers are used up before it is saved."""
    whole, _ = still
    run = elsewhere(whole, tmp_path)
    run.train(run.start(), seconds_between_checkpoints=math.inf)
    assert_same(best(run).state, best(whole).state)
    alone = elsewhere(whole, tmp_path / "alone")
    alone.train(alone.start(), stop_after=1)
    assert_same(best(run).state, latest(alone).state)


SKEWED = Experiment(
    data=DataConfig(binarization="none"),
    model=ModelConfig(latent_size=2, hidden_sizes=(4,), likelihood="gaussian"),
    objective=ObjectiveConfig(
        objective="geometric_js",
        alpha=0.3,
        alpha_schedule="trainable",
        beta=2.0,
        beta_schedule="linear",
        beta_ramp=0.75,
    ),
    training=TrainingConfig(num_epochs=3, batch_size=64, learning_rate=0.01, learning_rate_schedule="cosine"),
)


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """A run with schedules and a trainable skew, and no validation images."""
    images = split_images("random", "random", {"train": Split(PIXELS, None)}, num_validation=0)
    run = run_in(tmp_path_factory.mktemp("skewed") / "run", SKEWED, images)
    run.train(run.start())
    return run


def test_the_metrics_hold_what_the_schedules_gave_at_the_last_step(skewed):
    rows = skewed.folder.rows()
    last_steps = [row["step"] - 1 for row in rows]
    assert last_steps == [3, 7, 11]
    assert [row["beta"] for row in rows] == [float(beta_at(SKEWED.objective, step, 12)) for step in last_steps]
    assert [row["beta"] for row in rows] == pytest.approx([2 * 3 / 9, 2 * 7 / 9, 2])
    rates = [0.01 * (1 + math.cos(math.pi * step / 12)) / 2 for step in last_steps]
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates, rel=1e-5)


def test_the_metrics_follow_a_trainable_skew(skewed):
    alphas = [row["alpha"] for row in skewed.folder.rows()]
    assert len({0.3, *alphas}) == 4
    assert alphas[-1] == pytest.approx(1 / (1 + math.exp(-float(latest(skewed).state.learned.alpha_logit))), rel=1e-6)
    objectives, elbos = ([row[name] for row in skewed.folder.rows()] for name in ("train_objective", "train_elbo"))
    assert all(abs(one - other) > 1e-3 for one, other in zip(objectives, elbos, strict=True))


def test_without_validation_images_the_best_is_the_latest(skewed):
    for row in skewed.folder.rows():
        assert [row[name] for name in METRICS if name.startswith("validation")] == [None] * 4
        assert row["active_units"] in (0, 1, 2)
    assert best_row(skewed.folder.rows()) is None
    assert best(skewed).step == latest(skewed).step == 12


SEEDS = replace(EXPERIMENT, num_seeds=2)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("seeds") / "run", SEEDS)
    run.train(run.start())
    return run


@pytest.mark.slow
def test_the_metrics_of_several_seeds_are_lists(seeds, whole):
    for row, alone in zip(seeds.folder.rows(), whole.folder.rows(), strict=True):
        for name in ("train_elbo", "validation_elbo", "validation_elbo_se", "active_units"):
            assert len(row[name]) == 2
        assert row["train_elbo"][0] == pytest.approx(alone["train_elbo"], rel=1e-4)
        assert row["validation_elbo"][0] == pytest.approx(alone["validation_elbo"], rel=1e-4)
        assert row["train_elbo"][0] != row["train_elbo"][1]
    with (seeds.folder.path / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["epoch"], line["seed"]) for line in lines] == [(str(e), str(s)) for e in range(1, 5) for s in (0, 1)]
    assert float(lines[-1]["train_elbo"]) == seeds.folder.rows()[-1]["train_elbo"][1]
    assert best_row(seeds.folder.rows())["epoch"] == 1 + np.argmax(
        [np.mean(row["validation_elbo"]) for row in seeds.folder.rows()]
    )
    assert best(seeds).score == pytest.approx(np.mean(best_row(seeds.folder.rows())["validation_elbo"]))


@pytest.mark.usefixtures("single_steps")
def test_several_seeds_resume_bit_for_bit_too(seeds, tmp_path):
    run = elsewhere(seeds, tmp_path)
    looks = iter([False] * 6 + [True])
    run.train(run.start(), should_stop=lambda: next(looks))
    assert latest(run).step == 6
    run.train(run.resume(refuse))
    assert_same_run(run, seeds)


@pytest.mark.usefixtures("single_steps")
def test_the_seed_that_diverges_is_named(seeds, tmp_path):
    run = elsewhere(seeds, tmp_path)
    run.train(run.start(), stop_after=1)
    state = run.resume(refuse)
    head = state.learned.model["decoder"]["head"]
    poisoned = np.array(head["bias"])
    poisoned[1] = np.nan
    head["bias"] = jax.device_put(poisoned, head["bias"].sharding)
    with pytest.raises(Diverged, match=r"the reconstruction was nan by step 5 of seed 1 \(epoch 2, batch 1 of 4\)"):
        run.train(state)


def test_scores_see_binary_pixels_that_are_drawn_once():
    for name in ("train", "validation", "test"):
        split = getattr(IMAGES, name)
        pixels = visible_images(EXPERIMENT, split, name)
        assert set(np.unique(pixels)) == {0, 255}
        np.testing.assert_array_equal(pixels, visible_images(EXPERIMENT, split, name))
        # Drawn with the probability of the grey level: of 600 pixels or more the mean is within 5 standard errors.
        assert abs(pixels.mean() - split.images.mean()) < 5 * 127.5 / math.sqrt(pixels.size)
        fewer = visible_images(EXPERIMENT, Split(split.images[:10], None), name)
        np.testing.assert_array_equal(fewer, pixels[:10])
    same = Split(PIXELS[:50], None)
    draws = [visible_images(EXPERIMENT, same, name).tobytes() for name in ("train", "validation", "test")]
    assert len(set(draws)) == 3
    other = replace(EXPERIMENT, data=replace(EXPERIMENT.data, binarization_seed=1))
    assert visible_images(other, same, "test").tobytes() not in draws


def test_scores_see_grey_pixels_where_training_does():
    np.testing.assert_array_equal(visible_images(SKEWED, IMAGES.test, "test"), IMAGES.test.images.reshape(50, 12))
