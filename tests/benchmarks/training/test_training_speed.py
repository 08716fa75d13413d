import pytest

from benchmarks.interleaved_timing import ratios
from benchmarks.training.task_rounds import Entry, run_rounds
from benchmarks.training.task_worker import TaskFailed, started
from benchmarks.training.training_targets import training_targets

SETTING = {"batch_size": 64, "precision": "float32", "num_seeds": 1, "num_steps": 3}


@pytest.fixture
def digits_worker():
    with started("ours", "digits", 200) as worker:
        yield worker


@pytest.mark.slow
def test_a_worker_trains_and_outlives_a_task_that_fails(digits_worker):
    good, bad = Entry("ours", "ours", SETTING), Entry("ours", "no such task", SETTING)
    run_rounds({"ours": digits_worker}, [bad, good], rounds=2)

    assert (good.status, bad.status) == ("measured", "failed: KeyError: 'no such task'")
    assert len(good.seconds) == 2
    assert [answer["images"] for answer in good.answers] == [3 * 64] * 3


def test_a_process_that_has_ended_is_a_failure(digits_worker):
    digits_worker.process.kill()
    digits_worker.process.wait()
    with pytest.raises(TaskFailed, match="its process has ended"):
        digits_worker.ask("ours", **SETTING)


def test_ratios_are_taken_within_a_round():
    # The machine halves its speed in the second round, and the ratio does not see it.
    assert ratios([8.0, 4.0, 9.0], [4.0, 2.0, 3.0]) == {"median": 2.0, "min": 2.0, "max": 3.0}


def test_what_was_not_measured_is_not_met():
    failed = {"contender": "ours", "batch_size": 64, "precision": "float32", "num_seeds": 1, "status": "failed: gone"}
    results = {
        "trainings": [failed],
        "quality": [],
        "start": [{"cache": "empty", "median": 7.0}],
        "log_evidence": [{"status": "failed: gone"}],
        "memory": {"bytes_an_image_byte": None},
    }
    assert {row["met"] for row in training_targets(results) if not row["target"].startswith("start")} == {None}
    assert [row["met"] for row in training_targets(results) if row["target"].startswith("start")] == [True]
