import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

SETTING = {"batch_size": 64, "precision": "float32", "num_seeds": 1, "num_steps": 3}


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    # Other tests must not find the parts of a benchmark by such general names.
    for name in [name for name in sys.modules if name.split(".")[0] in ("training", "speed")]:
        del sys.modules[name]


@pytest.fixture
def digits_worker(benchmarks):
    from training.worker import started

    with started("ours", "digits", 200) as worker:
        yield worker


def test_a_worker_trains_and_outlives_a_task_that_fails(digits_worker):
    from training.rounds import Entry, run_rounds

    good, bad = Entry("ours", "ours", SETTING), Entry("ours", "no such task", SETTING)
    run_rounds({"ours": digits_worker}, [bad, good], rounds=2)

    assert (good.status, bad.status) == ("measured", "failed: KeyError: 'no such task'")
    assert len(good.seconds) == 2
    assert [answer["images"] for answer in good.answers] == [3 * 64] * 3


def test_a_process_that_has_ended_is_a_failure(digits_worker):
    from training.worker import Failed

    digits_worker.process.kill()
    digits_worker.process.wait()
    with pytest.raises(Failed, match="its process has ended"):
        digits_worker.ask("ours", **SETTING)


def test_ratios_are_taken_within_a_round(benchmarks):
    from training.rounds import ratios

    # The machine halves its speed in the second round, and the ratio does not see it.
    assert ratios([8.0, 4.0, 9.0], [4.0, 2.0, 3.0]) == {"median": 2.0, "min": 2.0, "max": 3.0}


def test_what_was_not_measured_is_not_met(benchmarks):
    from training.targets import targets

    failed = {"contender": "ours", "batch_size": 64, "precision": "float32", "num_seeds": 1, "status": "failed: gone"}
    results = {
        "trainings": [failed],
        "quality": [],
        "start": [{"cache": "empty", "median": 7.0}],
        "log_marginals": [{"status": "failed: gone"}],
        "memory": {"bytes_an_image_byte": None},
    }
    assert {row["met"] for row in targets(results) if not row["target"].startswith("start")} == {None}
    assert [row["met"] for row in targets(results) if row["target"].startswith("start")] == [True]
