import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from vae_jax.sealed_json import sealed
from vae_jax.vae.runs import checkpoint_files, checkpoints
from vae_jax.vae.runs.checkpoints import CheckpointError, Checkpoints
from vae_jax.vae.runs.schema_version import SCHEMA_VERSION, OtherSchema


class Moments(NamedTuple):
    mu: dict
    nu: dict


def state_at(step):
    """A small state that is a pure function of its step."""
    values = np.random.default_rng(step).normal(size=(3, 4)).astype(np.float32)
    return {
        "params": {"kernel": jnp.asarray(values)},
        "step": jnp.int32(step),
        "key": np.arange(2, dtype=np.uint32) + step,
    }


def same_bits(first, second):
    def same(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    return jax.tree.structure(first) == jax.tree.structure(second) and jax.tree.all(jax.tree.map(same, first, second))


def saved(folder, *steps, score=None):
    stored = Checkpoints(folder)
    for step in steps:
        stored.save(step, state_at(step), score=score)
    return stored


def restored(stored, told=None):
    found = stored.restore_latest(state_at(0), on_damage=(told if told is not None else []).append)
    assert same_bits(found.state, state_at(found.step))
    return found


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Nothing here outlives the machine, and a busy disk would be waited for thousands of times."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Checkpoints of steps 1 and 2, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("template")
    saved(folder, 1, 2)
    return folder


@pytest.fixture
def pair(template, tmp_path):
    return shutil.copytree(template, tmp_path / "pair")


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_restores_every_bit(tmp_path):
    odd = np.array([0x7FC00001, 0x7F800001, 0xFFC12345, 0x80000000, 1], np.uint32).view(np.float32)
    state = {
        "params": [{"a.b/c": odd, "": np.full(7, -0.0, ml_dtypes.bfloat16)}, (np.array([True, False]),)],
        "moments": Moments(mu={"w": np.full((2, 3), -0.0)}, nu={}),
        "none": None,
        "scalars": (jnp.int32(-3), np.float32(2.5), np.array(True), jnp.bfloat16(1.5), np.uint32(7)),
        "integers": {"int64": np.array([-(2**62)]), "uint8": np.arange(6, dtype=np.uint8).reshape(2, 3).T},
        "float8": np.ones(3, ml_dtypes.float8_e4m3fn),
        "nothing": np.zeros((0, 3), np.float16),
        "on the device": jnp.arange(4.0),
    }
    stored = Checkpoints(tmp_path)
    stored.save(0, state, score=-1.5)
    found = stored.restore_latest(state, on_damage=pytest.fail)
    assert (found.step, found.score) == (0, -1.5)
    assert isinstance(found.state["moments"], Moments)
    assert same_bits(found.state, state)


def test_restores_into_shapes(tmp_path):
    stored = saved(tmp_path, 4)
    like = jax.eval_shape(lambda: state_at(4))
    assert same_bits(stored.restore_latest(like, on_damage=pytest.fail).state, state_at(4))


def test_a_state_without_leaves(tmp_path):
    stored = Checkpoints(tmp_path)
    stored.save(0, {"a": None}, score=None)
    assert stored.restore_latest({"a": None}, on_damage=pytest.fail).state == {"a": None}


def test_plain_orbax_reads_it(tmp_path):
    import orbax.checkpoint as ocp

    saved(tmp_path, 4)
    with ocp.PyTreeCheckpointer() as checkpointer:
        leaves = checkpointer.restore(tmp_path / "4" / "state")
    assert same_bits(leaves["['params']['kernel']"], state_at(4)["params"]["kernel"])


def test_says_nothing(tmp_path, caplog, capfd):
    with caplog.at_level(logging.WARNING):
        restored(saved(tmp_path, 1, 2))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_importing_the_module_imports_no_orbax():
    code = "import sys, vae_jax.vae.runs.checkpoints; sys.exit('orbax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Which are kept, and which is taken.


@pytest.mark.parametrize(
    ("scores", "num_kept", "kept", "best"),
    [
        ([None, None, None], 2, [1, 2], 2),
        ([3.0, 1.0, 2.0, 0.0], 2, [0, 2, 3], 0),
        ([1.0, 3.0, 2.0, 0.0], 1, [1, 3], 1),
        ([-1.0, np.nan, np.inf, -np.inf], 3, [0, 1, 2, 3], 0),
        ([np.nan, np.inf, None, None], 1, [3], 3),
        ([2.0, 2.0, 2.0], 1, [0, 2], 0),
        ([-0.5, None], 1, [0, 1], 0),
    ],
)
def test_keeps_the_latest_and_the_best(tmp_path, scores, num_kept, kept, best):
    stored = Checkpoints(tmp_path, num_kept=num_kept)
    for step, score in enumerate(scores):
        stored.save(step, state_at(step), score=score)
    again = Checkpoints(tmp_path, num_kept=num_kept)
    assert again.steps() == kept
    assert names(tmp_path) == [str(step) for step in kept]
    found = again.restore_best(state_at(0), on_damage=pytest.fail)
    assert found.step == best
    assert same_bits(found.state, state_at(best))
    assert restored(again).step == len(scores) - 1


def test_steps_are_numbers_not_names(tmp_path):
    stored = saved(tmp_path, 9, 10, 100)
    assert stored.steps() == [10, 100]
    assert restored(stored).step == 100


def test_leaves_what_is_not_its_own(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "12-old").mkdir()
    assert saved(tmp_path, 1, 2, 3).steps() == [2, 3]
    assert names(tmp_path) == ["12-old", "2", "3", "notes.txt"]


def test_replaces_a_step(tmp_path):
    stored = saved(tmp_path, 1, 2, score=1.0)
    for value in (5.0, 6.0, 7.0):
        stored.save(2, {"a": jnp.array(value)}, score=0.0)
        found = stored.restore_latest({"a": jnp.array(0.0)}, on_damage=pytest.fail)
        assert (found.step, float(found.state["a"]), found.score) == (2, value, 0.0)
        assert stored.steps() == [1, 2]
        assert len(names(tmp_path)) == 2


def test_the_replaced_goes_after_the_new_is_there(pair, monkeypatch):
    before = []
    monkeypatch.setattr(Checkpoints, "_retain", lambda self: before.append(names(pair)))
    stored = saved(pair, 2)
    assert before == [["1", "2", "2.1"]]
    monkeypatch.undo()
    # As after a crash at this moment: both are whole, and the newer one counts, unless it is damaged.
    assert restored(stored).step == 2
    flip(pair / "2.1" / "manifest.json", 30)
    told = []
    assert restored(stored, told).step == 2
    assert "2.1" in told[0]
    assert f"{pair / '2'})" in told[0]


# Damage.


def flip(path, byte, bit=0):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def assert_passed_over(folder, *about):
    """Step 2 is known to be damaged, step 1 is used, and the one line told says so."""
    told = []
    assert restored(Checkpoints(folder), told).step == 1
    (line,) = told
    assert "\n" not in line
    assert line.startswith("checkpoint of step 2 is damaged: ")
    assert f"step 1 ({folder / '1'}) is used instead" in line
    for words in about:
        assert str(words) in line


def test_a_flipped_bit_in_any_file(pair):
    generator = np.random.default_rng(0)
    whole = {path: path.read_bytes() for path in files_below(pair / "2")}
    assert len(whole) > 5
    for path, content in whole.items():
        if content:
            for byte in {0, len(content) - 1, *generator.integers(len(content), size=3).tolist()}:
                flip(path, byte, int(generator.integers(8)))
                assert_passed_over(pair, path)
                path.write_bytes(content)
    assert restored(Checkpoints(pair)).step == 2


def test_flipped_bits_throughout_a_manifest(pair):
    manifest = pair / "2" / "manifest.json"
    content = manifest.read_bytes()
    for bit in range(0, 8 * len(content), 37):
        flip(manifest, bit // 8, bit % 8)
        with pytest.raises(checkpoint_files.Damage, match=r"manifest\.json"):
            checkpoint_files.read_manifest(pair / "2", 2)
        manifest.write_bytes(content)


def test_a_truncated_or_missing_file(pair):
    for path in files_below(pair / "2"):
        content = path.read_bytes()
        path.unlink()
        assert_passed_over(pair, f"{path} is missing")
        if content:
            path.write_bytes(content[: len(content) // 2])
            assert_passed_over(pair, path)
        path.write_bytes(content + b"\0")
        assert_passed_over(pair, path)
        path.write_bytes(content)
    assert restored(Checkpoints(pair)).step == 2


def test_an_extra_file(pair):
    (pair / "2" / "state" / "extra").touch()
    assert_passed_over(pair, pair / "2" / "state" / "extra", "not in the manifest")


@pytest.mark.parametrize("name", ["state/manifest.ocdbt", "manifest.json", "state/d", "state", "added"])
def test_a_symbolic_link_inside(pair, tmp_path, name):
    path, elsewhere = pair / "2" / name, tmp_path / "elsewhere"
    if path.exists():
        path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert_passed_over(pair, path, "symbolic link")


def test_a_symbolic_link_to_a_checkpoint(pair, tmp_path):
    (pair / "2").rename(tmp_path / "elsewhere")
    (pair / "2").symlink_to(tmp_path / "elsewhere")
    assert_passed_over(pair, pair / "2", "symbolic link")
    saved(pair, 2, 3)
    assert (tmp_path / "elsewhere" / "manifest.json").exists()


def test_a_pipe_is_not_waited_for(pair):
    (pair / "2" / "manifest.json").unlink()
    os.mkfifo(pair / "2" / "manifest.json")
    assert_passed_over(pair, "no regular file")


def test_a_checkpoint_of_another_step(pair):
    shutil.rmtree(pair / "2")
    shutil.copytree(pair / "1", pair / "2")
    assert_passed_over(pair, "another step")


@pytest.mark.parametrize("found", [None, SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_checkpoint_of_another_schema_version_is_neither_read_nor_removed(pair, found):
    path = pair / "1" / "manifest.json"
    manifest = json.loads(path.read_text()) | {"schema_version": found}
    del manifest["sha256"]
    if found is None:
        del manifest["schema_version"]
    path.write_bytes(sealed(manifest))
    before = {path: path.read_bytes() for path in files_below(pair)}
    stored = Checkpoints(pair)
    said = f"manifest.json must have schema_version {SCHEMA_VERSION}, .*, got {'none' if found is None else found}"
    for use in (stored.steps, lambda: restored(stored), lambda: stored.save(3, state_at(3), score=None)):
        with pytest.raises(OtherSchema, match=said):
            use()
    assert {path: path.read_bytes() for path in files_below(pair)} == before


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"sha256": 0}', "\xff", "[" * 9, '{"sha256": 1, "score": 1e999}']
)
def test_any_other_manifest(pair, content):
    (pair / "2" / "manifest.json").write_text(content, "latin-1")
    assert_passed_over(pair, pair / "2" / "manifest.json")
    assert Checkpoints(pair).steps() == [1]


def test_what_orbax_gives_is_verified_too(pair, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "_verify_files", lambda folder, digests: None)
    data = max(files_below(pair / "2" / "state"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-1])
    assert_passed_over(pair, "state cannot be read")
    shutil.rmtree(pair / "2" / "state")
    shutil.copytree(pair / "1" / "state", pair / "2" / "state")
    assert_passed_over(pair, "gives other bits for ['key']")


def test_all_are_damaged(pair):
    for step in (1, 2):
        flip(pair / str(step) / "state" / "_METADATA", 0)
    with pytest.raises(CheckpointError, match="start the run afresh") as error:
        restored(Checkpoints(pair))
    for step in (1, 2):
        assert str(pair / str(step) / "state" / "_METADATA") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [Path.mkdir, lambda folder: None])
def test_there_is_none(tmp_path, make):
    make(tmp_path / "run")
    stored = Checkpoints(tmp_path / "run")
    assert stored.steps() == []
    with pytest.raises(CheckpointError, match="there is none"):
        restored(stored)


def test_the_next_best_is_used(tmp_path):
    stored = Checkpoints(tmp_path, num_kept=4)
    for step, score in enumerate([2.0, 1.0, 3.0, None]):
        stored.save(step, state_at(step), score=score)
    for damaged, best in [(2, 0), (0, 1), (1, 3)]:
        (tmp_path / str(damaged) / "state" / "_METADATA").unlink()
        told = []
        assert stored.restore_best(state_at(0), on_damage=told.append).step == best
        assert told
        assert all(f"step {best} " in line for line in told)


def test_the_best_may_be_lost_with_its_manifest(pair):
    (pair / "1" / "manifest.json").unlink()
    told = []
    assert Checkpoints(pair).restore_best(state_at(0), on_damage=told.append).step == 2
    assert "step 1 is damaged" in told[0]


def test_one_that_may_be_the_best_stays_until_it_has_been_reported(pair):
    """Its score is lost with its manifest."""
    (pair / "1" / "manifest.json").write_text("{")
    stored = Checkpoints(pair)
    for step in (3, 4):
        stored.save(step, state_at(step), score=None)
    assert "1" in names(pair)
    told = []
    Checkpoints(pair).restore_best(state_at(0), on_damage=told.append)
    assert "checkpoint of step 1 is damaged" in told[0]


def test_training_on_after_damage(tmp_path):
    stored = saved(tmp_path, 1, 3)
    flip(tmp_path / "3" / "state" / "_METADATA", 0)
    assert restored(stored, []).step == 1
    stored.save(2, state_at(2), score=None)
    # What is damaged takes no good one's place, and does not stay.
    assert stored.steps() == [1, 2]
    stored.save(3, state_at(3), score=None)
    assert stored.steps() == [2, 3]
    assert restored(stored).step == 3
    assert names(tmp_path) == ["2", "3"]


def test_training_over_damage(pair):
    flip(pair / "2" / "state" / "_METADATA", 0)
    stored = Checkpoints(pair)
    assert restored(stored, []).step == 1
    stored.save(2, state_at(2), score=None)
    assert restored(stored).step == 2
    assert names(pair) == ["1", "2.1"]


# What fits.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "step": jnp.float32(0)}, r"\['step'\] must be float32\[\], got int32\[\]"),
        (lambda s: {**s, "key": np.zeros(4, np.uint32)}, r"\['key'\] must be uint32\[4\], got uint32\[2\]"),
        (lambda s: {**s, "key": np.zeros((1, 2), np.uint32)}, r"\['key'\] must be uint32\[1,2\], got uint32\[2\]"),
        (lambda s: {**s, "more": jnp.zeros(1)}, r"\['more'\] must be float32\[1\], got none"),
        (
            lambda s: {"step": s["step"], "key": s["key"]},
            r"\['params'\]\['kernel'\] must be absent, got float32\[3,4\]",
        ),
        (lambda s: {**s, "params": Moments(s["params"], {})}, r"\['params'\].mu\['kernel'\] must be float32\[3,4\]"),
        (lambda s: {**s, "params": [s["params"]["kernel"]]}, r"\['params'\]\[0\] must be float32\[3,4\], got none"),
    ],
)
def test_another_structure_is_refused(pair, change, message):
    with pytest.raises(CheckpointError, match=message) as error:
        Checkpoints(pair).restore_latest(change(state_at(0)), on_damage=pytest.fail)
    assert "checkpoint of step 2" in str(error.value)
    assert str(pair / "2") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (lambda: 1.0, "must hold arrays, got float"),
        (lambda: "a", "must hold arrays, got str"),
        (lambda: jax.random.key(0), "typed key at .*key_data"),
        (lambda: np.array(["a"]), "must hold numbers"),
        (lambda: np.array([None]), "must hold numbers"),
        (lambda: np.arange(3).astype(">i4"), "native order"),
    ],
)
def test_refuses_what_is_not_an_array(tmp_path, leaf, message):
    with pytest.raises(TypeError, match=message) as error:
        Checkpoints(tmp_path / "run").save(0, {"a": [leaf()]}, score=None)
    assert "['a'][0]" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_refuses_to_restore_into_what_is_not_an_array(pair):
    with pytest.raises(TypeError, match=r"like must hold arrays, got int at \['step'\]"):
        Checkpoints(pair).restore_latest({"step": 3}, on_damage=pytest.fail)


def test_refuses_misuse(tmp_path):
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        Checkpoints(tmp_path).save(-1, state_at(0), score=None)
    with pytest.raises(ValueError, match="num_kept must be at least 1, got 0"):
        Checkpoints(tmp_path, num_kept=0)


# Saves that fail or are cut short.


def assert_as_it_was(pair):
    assert names(pair) == ["1", "2"]
    assert restored(Checkpoints(pair)).step == 2


def test_too_little_space(pair, monkeypatch):
    usage = shutil.disk_usage(pair)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"step 3 cannot be saved as .*3: the disk must have .* free, got 1,000"):
        saved(pair, 3)
    assert_as_it_was(pair)


class Full:
    """A disk that is full at the n-th call of a function."""

    def __init__(self, function, calls):
        self.function, self.calls = function, calls

    def __call__(self, *args, **kwargs):
        self.calls -= 1
        if self.calls == 0:
            raise OSError(28, "No space left on device")
        return self.function(*args, **kwargs)


# The manifests of the two that are there have been read, and compared, before the third is made.
@pytest.mark.parametrize(
    ("name", "calls"), [("sync", 1), ("sync", 5), ("_files", 3), ("_digest", 2), ("sealed", 1), ("_checkpointer", 1)]
)
def test_a_full_disk(pair, monkeypatch, name, calls):
    stored = Checkpoints(pair)
    monkeypatch.setattr(checkpoint_files, name, Full(getattr(checkpoint_files, name), calls))
    with pytest.raises(CheckpointError, match=r"checkpoint of step 3 .*No space left on device; earlier ones are kept"):
        stored.save(3, state_at(3), score=None)
    monkeypatch.undo()
    assert_as_it_was(pair)


def test_a_disk_that_takes_no_more(pair, caplog):
    """A limit on the size of files fails the writes of Orbax's threads as a full disk does."""
    too_large = {"a": np.random.default_rng(0).normal(size=20_000)}
    stored, limits = Checkpoints(pair), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"step 3 cannot be saved as .*Error writing.*; earlier") as error:
            stored.save(3, too_large, score=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert not caplog.records
    assert_as_it_was(pair)


def test_an_interrupt(pair, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    stored = Checkpoints(pair)
    monkeypatch.setattr(checkpoint_files, "sync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stored.save(3, state_at(3), score=None)
    assert_as_it_was(pair)


def test_what_orbax_wrote_wrongly_is_not_a_checkpoint(pair, monkeypatch):
    import orbax.checkpoint as ocp

    save = ocp.Checkpointer.save

    def save_zero(self, directory, leaves):
        save(self, directory, {path: np.zeros_like(leaf) for path, leaf in leaves.items()})

    monkeypatch.setattr(ocp.Checkpointer, "save", save_zero)
    with pytest.raises(CheckpointError, match=r"step 3 .*gives other bits for \['key'\] than were saved"):
        saved(pair, 3)
    assert_as_it_was(pair)


def test_only_process_0_saves(pair, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ValueError, match="must be called in process 0, got process 1"):
        saved(pair, 3)
    assert_as_it_was(pair)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"checkpoints in .*file/run cannot be read: .*Not a directory"):
        saved(tmp_path / "file" / "run", 0)


def test_the_manifest_reaches_the_disk_after_all_it_lists(tmp_path, monkeypatch):
    partial, final = tmp_path / "run" / ".partial-0", tmp_path / "run" / "0"
    synced = []

    def note(path):
        synced.append((path, (partial / "manifest.json").exists(), final.exists()))

    for module in (checkpoints, checkpoint_files):
        monkeypatch.setattr(module, "sync", note)
    saved(tmp_path / "run", 0)
    state = {(partial / path.relative_to(final), False, False) for path in final.rglob("*")}
    state.remove((partial / "manifest.json", False, False))
    assert len(state) > 5
    assert synced[0] == (tmp_path, False, False)
    assert set(synced[1:-3]) == state
    assert synced[-3:] == [
        (partial / "manifest.json", True, False),
        (partial, True, False),
        (tmp_path / "run", False, True),
    ]


def test_sweeps_what_interrupted_saves_left(pair, tmp_path):
    (pair / ".partial-3" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    (pair / ".partial-1").symlink_to(tmp_path)
    (pair / ".partial-file").touch()
    stored = Checkpoints(pair)
    assert restored(stored).step == 2
    assert len(hidden(pair)) == 3
    stored.save(3, state_at(3), score=None)
    assert names(pair) == ["2", "3"]
    assert tmp_path.is_dir()


class DiesAt:
    """Kills the process, as kill -9 does, at the n-th of the calls that change what is on the disk."""

    def __init__(self, call):
        self.left = call
        os.fsync = lambda descriptor: None
        for name in ("mkdir", "rename", "replace", "fsync", "unlink", "rmdir"):
            setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, function):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call


def in_a_fork(function, *args):
    """Starts the function in a copy of this process, which exits with 0 where it returns."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            function(*args)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def save_and_die(folder, call):
    DiesAt(call)
    Checkpoints(folder, num_kept=1).save(2, state_at(2), score=None)


def save_on_and_on(folder):
    stored = Checkpoints(folder)
    step = restored(stored).step if stored.steps() else 0
    while True:
        step += 1
        stored.save(step, state_at(step), score=float(-step % 7))


def die_at_every_call(folder):
    """Every call in turn, from the first to the last."""
    code, call = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        call += 1
        target = shutil.copytree(folder / "template", folder / f"call-{call}")
        code = exit_code(in_a_fork(save_and_die, target, call))
    assert code == 0, code


def die_at_any_moment(folder):
    delays, stored = random.Random(0), Checkpoints(folder / "loop")
    for _ in range(6):
        before = stored.steps()[-1:]
        child = in_a_fork(save_on_and_on, folder / "loop")
        while stored.steps()[-1:] == before:
            time.sleep(0.01)
        time.sleep(delays.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL


def run_apart(name, folder):
    """Runs a function of this file in a process where JAX has started no threads, so that forks are safe."""
    code = f"import sys, pathlib, orbax.checkpoint, {__name__} as t; t.{name}(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True, timeout=300)


@pytest.mark.slow
def test_killed_at_every_step_of_a_save(template, tmp_path):
    shutil.copytree(template / "1", tmp_path / "template" / "1")
    run_apart("die_at_every_call", tmp_path)
    latest = []
    for call in range(1, len(list(tmp_path.glob("call-*"))) + 1):
        stored, told = Checkpoints(tmp_path / f"call-{call}", num_kept=1), []
        latest.append(restored(stored, told).step)
        assert not told
        stored.save(3, state_at(3), score=None)
        assert names(tmp_path / f"call-{call}") == ["3"]
    assert latest == sorted(latest)
    assert latest.count(1) > 10
    assert latest.count(2) > 10


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    run_apart("die_at_any_moment", tmp_path)
    stored, told = Checkpoints(tmp_path / "loop"), []
    last = restored(stored, told).step
    assert last >= 6
    assert not told
    stored.save(last + 1, state_at(last + 1), score=0.0)
    assert not hidden(tmp_path / "loop")
    assert stored.steps()[-2:] == [last, last + 1]
