"""Every command once as a user starts it: as a process of its own, which imports, configures and starts JAX itself.

JAX checks each for NaN: a number that was not computed must be no NaN inside a compiled program.
"""

import json
import re
import shlex
import subprocess

import pytest

from commands import run_process, settings_of_process, words_of_process
from small_commands import ARGUMENTS
from vae_jax.cli.commands import COMMANDS

pytestmark = pytest.mark.slow

OUT = {"train": "run", "encode": "codes.npz"}


@pytest.fixture(scope="module")
def checked_for_nan():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAX_DEBUG_NANS", "1")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checked_for_nan):
    """The folder that all commands are started in, the training first, whose run the later ones read."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "data.csv").write_text("count,x\n3,0.1\n4,0.9\n8,1.5\n2,0.2\n7,1.9\n")
    process = run_process("train", *ARGUMENTS["train"], "--out", OUT["train"], cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


def test_no_command_is_left_out():
    assert set(ARGUMENTS) == set(COMMANDS)


@pytest.mark.parametrize("command", [name for name in ARGUMENTS if name != "train"])
def test_a_command_runs_in_a_process_of_its_own(command, folder):
    out = () if command == "evaluate" else ("--out", OUT.get(command, f"{command}-out"))
    process = run_process(command, *ARGUMENTS[command], *out, cwd=folder)
    assert process.returncode == 0, process.stderr
    assert "warning" not in process.stderr.lower()
    assert re.search("^Saved ", process.stdout, re.MULTILINE)
    for path in out[1:]:
        assert (folder / path).exists()
        if (config := folder / path / "config.json").exists():
            assert json.loads(config.read_text())["command_line"].startswith(f"vae-jax {command} ")


@pytest.mark.parametrize(("output", "code"), [("/dev/full", 1), (None, 0)])
def test_results_outlive_an_output_that_takes_nothing(tmp_path, output, code):
    """A full disk behind standard output, and one that was closed before the start."""
    words = words_of_process("variance", *ARGUMENTS["variance"], "--out", "results")
    redirected = f"{shlex.join(words)} >{output or '&-'}"
    process = subprocess.run(
        redirected, shell=True, stderr=subprocess.PIPE, check=False, **settings_of_process(tmp_path)
    )
    assert process.returncode == code
    assert "Traceback" not in process.stderr
    assert (tmp_path / "results" / "variance.json").exists()
