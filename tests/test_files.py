import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from vae_jax import files
from vae_jax.cli.misuse import Misuse
from vae_jax.cli.output_folder import staged
from vae_jax.files import FolderInUse, UnsafePath, append_json_line, locked, remove_unfinished, replacing, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def interrupted(folder, meanwhile=lambda: None):
    with staged(folder):
        meanwhile()
        raise KeyboardInterrupt


def test_an_interrupted_command_removes_only_what_it_made(tmp_path):
    """Another command finishes into the folder that this one has made for its own."""

    def finished():
        with staged(tmp_path / "results" / "laplace") as other:
            (other / "laplace.json").write_text("{}")

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "results" / "variance", finished)
    assert names(tmp_path / "results") == ["laplace"]
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "more" / "below")
    assert names(tmp_path) == ["results"]


def test_the_end_of_a_process_removes_what_is_unfinished(tmp_path):

    def end():
        with staged(tmp_path / "results"), replacing(tmp_path / "codes.npz", "wb"):
            assert len(names(tmp_path)) == 2
            remove_unfinished()
            assert names(tmp_path) == []

    with pytest.raises(FileNotFoundError):
        end()
    assert names(tmp_path) == []


KILLED = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pathlib import Path
from vae_jax.cli.output_folder import staged
from vae_jax.files import locked, replacing
with staged(Path("results")) as stage, replacing(Path("codes.npz"), "wb") as file, locked(Path("run")):
    (stage / "half").write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of its work."""
    (tmp_path / "run").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_use_is_refused_until_its_process_ends(tmp_path, writer):
    in_use = r"run must not be in use, got another process .*: wait for it, or name another"
    with pytest.raises(FolderInUse, match=in_use), locked(tmp_path / "run"):
        pass
    with pytest.raises(Misuse, match="results must not be in use"), staged(tmp_path / "results"):
        pass
    writer.kill()
    writer.wait()
    with locked(tmp_path / "run"):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_what_a_killed_process_left_is_swept_at_the_next_start(tmp_path, writer, number):
    write_json(tmp_path / "codes.npz", {})
    assert len(names(tmp_path)) == 4, "what a living process writes is left alone"
    writer.send_signal(number)
    writer.wait()
    assert len(names(tmp_path / "results")) == 1
    write_json(tmp_path / "codes.npz", {})
    with staged(tmp_path / "results") as stage:
        (stage / "a").touch()
    assert names(tmp_path / "results") == ["a"]
    assert names(tmp_path) == ["codes.npz", "results", "run"]


def kinds(folder):
    """Paths that are no plain files."""
    (folder / "victim").write_text("precious")
    (folder / "link").symlink_to(folder / "victim")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket"))
    return {
        "link": "a symbolic link",
        "dangling": "a symbolic link",
        "folder": "a folder",
        "pipe": "a pipe",
        "socket": "a socket",
    }


@pytest.mark.parametrize("write", [write_json, append_json_line])
def test_only_plain_files_are_written(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)  # A socket's path must be short.
    for name, found in kinds(tmp_path).items():
        with pytest.raises(UnsafePath, match=rf"{name} must be a plain file, got {found}: remove it, or name another"):
            write(tmp_path / name, {})
    with pytest.raises(UnsafePath, match="null must be a plain file, got a device"):
        write(files.Path("/dev/null"), {})
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_name_that_was_laid_out_is_not_followed(tmp_path):
    """The names of unfinished files cannot be known before."""
    (tmp_path / "victim").write_text("precious")
    for name in (".summary.json.partial", ".partial-summary.json", ".partial-summary.json-"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    write_json(tmp_path / "summary.json", {"a": 1})
    with staged(tmp_path) as stage:
        (stage / "b").touch()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_file_has_the_mode_that_others_would_have(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a", {})
        append_json_line(tmp_path / "b", {})
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o640]


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path):
    file = tmp_path / "lines"
    append_json_line(file, {"a": 1})
    file.write_text(file.read_text() + '{"a"')
    append_json_line(file, {"a": 2})
    assert file.read_text() == '{"a": 1}\n{"a"\n{"a": 2}\n'


def test_finished_files_reach_their_place_before_the_process_ends(tmp_path):
    with files.publishing():
        start = time.monotonic()
        remove_unfinished()
        assert time.monotonic() - start == pytest.approx(files.LONGEST_MOVE, abs=0.5)


def test_the_modules_of_the_package_load_no_pickle():
    """No reader runs what a file says."""
    package = files.Path(files.__file__).parent
    dangerous = re.compile(
        r"\bpickle\b|allow_pickle=True|\beval\(|\bexec\(|yaml\.load\(|shell=True|marshal|joblib|\bdill\b"
    )
    found = [path.name for path in package.rglob("*.py") if dangerous.search(path.read_text())]
    assert found == []
