import json
import subprocess

import pytest

from benchmarks.child_process import child_environment, module_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The benchmark at small sizes, whose times say nothing."""
    folder = tmp_path_factory.mktemp("inference_speed")
    # Its own cache folder, so that the user's holds no programs of small sizes.
    environment = child_environment(JAX_PLATFORMS="cpu", XDG_CACHE_HOME=str(folder / "cache"))
    command = module_command("benchmarks.inference.inference_speed", "--quick", "--out", folder)
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert max(map(len, process.stdout.splitlines())) <= 80
    return process.stdout, json.loads((folder / "inference_speed_cpu.json").read_text())


def test_every_question_is_answered(measured):
    printed, results = measured
    assert results["cavi"]["events"] == results["method"]["events"]
    assert {"one_device", "sharded"} <= results["cavi"]["seconds"].keys()
    assert results["restarts"]["restarts"] == 100
    assert [row["model"] for row in results["fit"]] == ["poisson_gamma"]
    for row in results["fit"]:
        assert {"faster_than_numpyro", "faster_than_numpyro_without_bar"} <= row.keys()
    for line in (
        "cavi, memory, bytes an event",
        "100 restarts",
        "scikit-learn over normal-Wishart",
        "NumPyro over fit",
    ):
        assert line in printed


def test_the_two_bounds_of_the_normal_wishart_mixture_rise_alike(measured):
    assert measured[1]["normal_wishart"]["largest_difference_of_rises"] < 1e-6
