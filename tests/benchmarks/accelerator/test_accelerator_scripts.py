import gzip
import json
import subprocess
import sys

import pytest

from benchmarks.accelerator import exactness, passes, steps
from benchmarks.accelerator.profiling import kernels
from benchmarks.child_process import CHECKOUT, child_environment


def options_of(script, tmp_path, *arguments):
    return script.parser().parse_args(["--out", str(tmp_path), *arguments])


@pytest.mark.slow
def test_a_mean_beyond_the_limit_is_printed_and_fails(capsys, monkeypatch):
    monkeypatch.setattr(exactness, "LIMIT", 0.0)
    assert exactness.main(exactness.parser().parse_args(["--only", "square inverse_cdf"])) == 1

    *cells, last = capsys.readouterr().out.splitlines()[1:]
    assert len(cells) == 3
    assert all(cell.startswith("OFF: square inverse_cdf ") for cell in cells)
    assert all(float(cell.rpartition("z = ")[2]) < 5.5 for cell in cells)
    assert last.startswith("3 cells, worst z ")


def test_nothing_is_compared_after_the_limit(capsys):
    assert exactness.main(exactness.parser().parse_args(["--limit", "-1"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "out of time: the rest was not run"
    assert lines[2].startswith("0 cells, worst z 0.00 (), ")


@pytest.mark.slow
@pytest.mark.parametrize("section", ["null", "pass pathwise 10000 x 10"])
def test_a_section_of_the_passes_is_timed_and_saved(section, tmp_path, capsys):
    passes.main(options_of(passes, tmp_path, "--scale", "0.001", "--only", section))

    results = json.loads((tmp_path / "passes.json").read_text())
    assert {"first_s", "median_ms", "min_ms", "queued_ms"} <= results[section].keys()
    assert f" {section}: {{" in capsys.readouterr().out


def test_nothing_starts_after_the_limit(tmp_path, capsys):
    passes.main(options_of(passes, tmp_path, "--limit", "-1"))

    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 17
    assert all(line.endswith(" out of time") for line in lines)


@pytest.mark.slow
def test_steps_are_timed_and_a_contender_that_fails_is_an_entry(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for only in ("ours b64 float32 s1", "torch fused"):
        steps.main(options_of(steps, tmp_path, "--data", "digits", "--only", only, "--tag", only[:5]))

    ours, torch = (json.loads((tmp_path / f"{tag}.json").read_text()) for tag in ("ours ", "torch"))
    assert ours["ours b64 float32 s1"]["steps"] == 2
    assert torch["torch fused b64 float32 s1"].startswith("FAILED ModuleNotFoundError")


def test_a_script_runs_as_a_file(tmp_path):
    script = CHECKOUT / "benchmarks" / "accelerator" / "passes.py"
    environment = child_environment(OUT=str(tmp_path), LIMIT="-1", JAX_PLATFORMS="cpu")
    process = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)

    assert process.returncode == 0, process.stderr
    assert "copy out of time" in process.stdout.splitlines()


def test_kernels_of_the_device_are_counted(tmp_path):
    events = [
        {"name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"name": "process_name", "pid": 2, "args": {"name": "/host:CPU"}},
        {"name": "thread_name", "pid": 1, "tid": 7, "args": {"name": "Stream #7(Compute)"}},
        {"name": "thread_name", "pid": 2, "tid": 7, "args": {"name": "Stream of the host"}},
        {"name": "fusion", "ph": "X", "pid": 1, "tid": 7, "ts": 10, "dur": 4},
        {"name": "fusion", "ph": "X", "pid": 1, "tid": 7, "ts": 20, "dur": 6},
        {"name": "python", "ph": "X", "pid": 2, "tid": 7, "ts": 0, "dur": 100},
        {},
    ]
    with gzip.open(tmp_path / "host.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": events}, file)

    assert kernels(tmp_path, 2) == {"events": 1, "busy_us": 5, "span_us": 8, "top": [("fusion", 1, 5)]}
    assert kernels(tmp_path / "none", 1) == "no trace"
