"""Requests to stop reach a command whatever it computes, as processes of their own show."""

import signal
import subprocess
import sys
import time

import pytest

from vae_jax.cli import stop_signals

COMMAND = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.{hangup})
from pathlib import Path
from vae_jax.cli.output_folder import staged
from vae_jax.cli.stop_signals import Stopped, in_a_thread, stop_requests

def busy():
    # As XLA does, it lets no instruction of Python's run in its thread.
    print("ready", flush=True)
    time.sleep(60)

def unsaved():
    with staged(Path("results/deep")) as stage:
        (stage / "half").touch()
        busy()

def saving():
    with stop_requests() as should_stop:
        print("ready", flush=True)
        while not should_stop():
            time.sleep(0.01)
        time.sleep({seconds})
    time.sleep(0.5)
    print("saved", flush=True)
    return 130

def stuck():
    with stop_requests():
        busy()

sys.exit(in_a_thread({command}))
"""


def started(folder, command, seconds=0.0, hangup="SIG_DFL"):
    code = COMMAND.format(command=command, seconds=seconds, hangup=hangup)
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process):
    start = time.monotonic()
    output, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    return process.returncode, time.monotonic() - start, output, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_busy_command_ends_at_once_and_leaves_nothing(tmp_path, number):
    process = started(tmp_path, "unsaved")
    process.send_signal(number)
    code, seconds, _, errors = ended(process)
    assert (code, errors) == (130, "vae-jax: error: interrupted: what was not saved yet is lost\n")
    assert seconds < 2
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_saves_itself_may_finish(tmp_path):
    process = started(tmp_path, "saving", seconds=0.5)
    process.send_signal(signal.SIGINT)
    assert ended(process)[::2] == (130, "saved\n")


def test_a_command_that_was_started_by_nohup_outlives_its_terminal(tmp_path):
    process = started(tmp_path, "unsaved", hangup="SIG_IGN")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 130


def test_a_second_request_ends_it_at_once(tmp_path):
    process = started(tmp_path, "saving", seconds=20)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code, seconds, _, errors = ended(process)
    assert (code, errors) == (130, "vae-jax: error: interrupted: the run continues from its last checkpoint\n")
    assert seconds < 2


@pytest.mark.slow
def test_a_command_that_does_not_come_to_save_ends_in_time(tmp_path):
    process = started(tmp_path, "stuck")
    process.send_signal(signal.SIGINT)
    code, seconds, *_ = ended(process)
    assert code == 130
    assert stop_signals.LONGEST_SAVE - 1 < seconds < stop_signals.LONGEST_SAVE + 1


def test_what_a_command_returns_or_raises_is_passed_on():
    assert stop_signals.in_a_thread(lambda: 3) == 3
    with pytest.raises(SystemExit, match="2"):
        stop_signals.in_a_thread(lambda: sys.exit(2))


def test_a_request_during_the_imports_ends_the_command(tmp_path):
    for delay in (0.1, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-m", "vae_jax", "variance"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        time.sleep(delay + 0.15)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode in (130, -signal.SIGTERM)
        assert "Traceback" not in errors
