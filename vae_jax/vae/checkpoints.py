"""Checkpoints of a run: the latest few and the best, each verified before it is used.

A checkpoint is a folder `<step>`, or `<step>.<generation>` where a step was saved again. Its `state/` is a plain Orbax
checkpoint of the leaves by their paths; its `manifest.json` holds the SHA-256 of every file, of every leaf's bytes and
of itself. It is assembled under a hidden name, synced to the disk and renamed last, so that one which can be seen is
whole. Of Orbax only the synchronous `Checkpointer` is used: its `CheckpointManager` publishes a step, and deletes older
ones, before anything is synced or a manifest can be in it.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
import stat
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_FORMAT = 1
_STATE = "state"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_HIDDEN = ".partial-"


class CheckpointError(Exception):
    """A checkpoint cannot be saved or restored. The message is one line that names the step and the file."""


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: PyTree
    """NumPy arrays with the bits that were saved, in the structure that was asked for."""
    score: float | None


class Checkpoints:
    """The checkpoints in a folder. Only saving changes it, and makes it where it is absent.

    Args:
        folder: where they are; one process at a time may save there.
        num_kept: how many of the latest are kept, beside the best by score.
    """

    def __init__(self, folder: Path, *, num_kept: int = 2):
        if num_kept < 1:
            raise ValueError(f"num_kept must be at least 1, got {num_kept}: keep the latest checkpoint")
        self._folder = folder.absolute()
        self._num_kept = num_kept
        self._damaged: set[Path] = set()

    def save(self, step: int, state: PyTree, *, score: float | None) -> None:
        """Saves a checkpoint, then removes those that are neither among the latest nor the best.

        When this returns it is on the disk and has been read back. An earlier one of the same step goes once the new
        one is there. In a run of several processes, process 0 saves.

        Args:
            step: its number, not negative.
            state: a pytree of NumPy or JAX arrays; a typed key as its `jax.random.key_data`.
            score: the higher the better; among equals the earlier step is better. One that is not finite is as None.

        Raises:
            CheckpointError: it cannot be written; earlier checkpoints are kept.
            TypeError: a leaf of `state` is not an array.
            ValueError: `step` is negative, or this is not process 0.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}: count steps from the start of the run")
        if jax.process_index():  # Orbax would write a NumPy array nowhere, and not say so.
            raise ValueError(f"save must be called in process 0, got process {jax.process_index()}: save there alone")
        arrays = {path: _native(path, leaf) for path, leaf in jax.device_get(_leaves(state, "state")).items()}
        finite_score = score if score is not None and math.isfinite(score) else None
        generation = max((found.generation + 1 for found in self._found() if found.step == step), default=0)
        final = self._folder / (f"{step}.{generation}" if generation else f"{step}")
        partial = final.with_name(f"{_HIDDEN}{final.name}")
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True)
                _sync(self._folder.parent)
            self._sweep()
            _require_space(self._folder, sum(array.nbytes for array in arrays.values()))
            _write(partial, step, arrays, finite_score)
            partial.rename(final)
            _sync(self._folder)
        except Exception as error:  # Orbax raises anything.
            raise CheckpointError(
                f"checkpoint of step {step} cannot be saved as {final}: {_reason(error)}; earlier ones are "
                "kept: see that the folder can be written to and the disk has room, then resume"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._damaged.discard(final)
        self._retain()

    def restore_latest(self, like: PyTree, *, on_damage: Callable[[str], None]) -> Restored:
        """The newest undamaged checkpoint.

        Args:
            like: arrays or `jax.ShapeDtypeStruct`s of the structure, shapes and dtypes that the state must have.
            on_damage: is told of each damaged checkpoint passed over, in one line, and which one is used instead.

        Raises:
            CheckpointError: there is none, or it has other leaves, shapes or dtypes than `like`.
            TypeError: a leaf of `like` is not an array.
        """
        return self._restore(self._found(), like, on_damage)

    def restore_best(self, like: PyTree, *, on_damage: Callable[[str], None]) -> Restored:
        """The undamaged checkpoint of the highest score, or the newest if none has a score.

        Arguments and errors are as in `restore_latest`.
        """
        return self._restore(sorted(self._found(), key=_merit), like, on_damage)

    def steps(self) -> list[int]:
        """The steps, ascending, whose manifest is whole. Their files are verified when they are restored."""
        return sorted({found.step for found in self._found() if found.manifest is not None})

    def _found(self) -> "list[_Found]":
        """The checkpoints in the folder, newest first."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise CheckpointError(f"checkpoints in {self._folder} cannot be read: {_reason(error)}") from error
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        found = [_find(self._folder / match[0], int(match[1]), int(match[2] or 0)) for match in matches]
        return sorted(found, key=lambda each: (each.step, each.generation), reverse=True)

    def _restore(self, candidates: "list[_Found]", like: PyTree, on_damage: Callable[[str], None]) -> Restored:
        expected = _leaves(like, "like")
        damage: list[str] = []
        for found in candidates:
            try:
                arrays = _read(found, expected)
            except (_Damage, OSError) as error:
                self._damaged.add(found.path)
                damage.append(f"checkpoint of step {found.step} is damaged: {error}")
                continue
            for line in damage:
                on_damage(f"{line}; step {found.step} ({found.path}) is used instead")
            state = jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in expected])
            return Restored(found.step, state, found.score)
        reason = "; ".join(damage) or "there is none"
        raise CheckpointError(f"no checkpoint in {self._folder} can be restored: {reason}: start the run afresh")

    def _retain(self) -> None:
        """Removes all but the latest and the best of those that are not known to be damaged."""
        found = self._found()
        newest_of_step: dict[int, _Found] = {}
        for each in found:
            if each.manifest is not None and each.path not in self._damaged:
                newest_of_step.setdefault(each.step, each)
        whole = list(newest_of_step.values())
        kept = {each.path for each in (*whole[: self._num_kept], min(whole, key=_merit))}
        for each in found:
            if each.path not in kept:
                # Renamed first, as half a removal must not look like damage. What cannot be removed is tried next time.
                with contextlib.suppress(OSError):
                    each.path.rename(self._folder / f"{_HIDDEN}{each.path.name}")
        self._sweep()

    def _sweep(self) -> None:
        """Removes what interrupted saves and removals left."""
        for path in self._folder.glob(f"{_HIDDEN}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


class _Damage(Exception):
    """A file is not as it was saved."""


class _Found(NamedTuple):
    """A folder that is named as a checkpoint is."""

    path: Path
    step: int
    generation: int
    manifest: dict[str, Any] | None
    damage: str
    """Why there is no manifest."""

    @property
    def score(self) -> float | None:
        return None if self.manifest is None else self.manifest["score"]


def _find(path: Path, step: int, generation: int) -> _Found:
    try:
        return _Found(path, step, generation, _read_manifest(path, step), "")
    except (_Damage, OSError) as error:
        return _Found(path, step, generation, None, str(error))


def _merit(found: _Found) -> tuple[int, float, int]:
    """Sorts the best first: any might be whose manifest is lost, then by score, then the newest without one."""
    if found.manifest is None:
        return (0, 0.0, -found.step)
    return (2, 0.0, -found.step) if found.score is None else (1, -found.score, found.step)


def _write(folder: Path, step: int, arrays: Mapping[str, np.ndarray], score: float | None) -> None:
    """Makes a checkpoint, synced, with its manifest last."""
    folder.mkdir()
    # Orbax refuses arrays without elements; their shapes are in the manifest.
    stored = {path: array for path, array in arrays.items() if array.size}
    if stored:
        with _checkpointer() as checkpointer:
            checkpointer.save(folder / _STATE, stored)
    for path in folder.rglob("*"):
        _sync(path)
    leaves = {path: {"type": _type(array), "sha256": _digest(array)} for path, array in arrays.items()}
    _load(folder / _STATE, leaves, arrays)
    manifest = {
        "format": _FORMAT,
        "step": step,
        "score": score,
        "leaves": leaves,
        "files": {name: _file_digest(path) for name, path in _files(folder).items()},
    }
    (folder / _MANIFEST).write_bytes(_render(manifest))
    _sync(folder / _MANIFEST)
    _sync(folder)


def _read(found: _Found, expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The leaves by path of a checkpoint that holds those expected.

    Raises:
        _Damage: it is not as it was saved.
        CheckpointError: it is, and holds others.
    """
    if found.manifest is None:
        raise _Damage(found.damage)
    leaves = found.manifest["leaves"]
    _require_same(found, leaves, expected)
    _verify_files(found.path, found.manifest["files"])
    return _load(found.path / _STATE, leaves, expected)


def _load(state: Path, leaves: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What Orbax reads, verified leaf by leaf."""
    try:
        with _checkpointer() as checkpointer:
            arrays = checkpointer.restore(state) if state.exists() else {}
    except Exception as error:  # Orbax raises anything.
        raise _Damage(f"{state} cannot be read: {_reason(error)}") from error
    arrays |= {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in like.items() if 0 in leaf.shape}
    for path, leaf in leaves.items():
        if path not in arrays or _type(arrays[path]) != leaf["type"] or _digest(arrays[path]) != leaf["sha256"]:
            raise _Damage(f"{state} gives other bits for {path} than were saved")
    return arrays


def _require_same(found: _Found, leaves: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    held = {path: leaf["type"] for path, leaf in leaves.items()}
    asked = {path: _type(leaf) for path, leaf in expected.items()}
    for path in {**asked, **held}:
        if held.get(path) != asked.get(path):
            raise CheckpointError(
                f"checkpoint of step {found.step} is of another model: {path} must be {asked.get(path, 'absent')}, got "
                f"{held.get(path, 'none')} in {found.path}: restore it with the configuration it was saved with"
            )


def _verify_files(folder: Path, digests: Mapping[str, str]) -> None:
    files = _files(folder)
    for name in sorted({*digests, *files} - {_MANIFEST}):
        if name not in files:
            raise _Damage(f"{folder / name} is missing")
        if name not in digests:
            raise _Damage(f"{files[name]} is not in the manifest")
        if _file_digest(files[name]) != digests[name]:
            raise _Damage(f"{files[name]} has another SHA-256 than in the manifest")


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their relative paths, all of them regular."""
    if folder.is_symlink():
        raise _Damage(f"{folder} is a symbolic link")
    found = {}
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise _Damage(f"{path} is {'a symbolic link' if stat.S_ISLNK(mode) else 'no regular file'}")
    return found


def _read_manifest(folder: Path, step: int) -> dict[str, Any]:
    path = folder / _MANIFEST
    if _MANIFEST not in _files(folder):
        raise _Damage(f"{path} is missing")
    try:
        written = path.read_bytes()
        manifest = json.loads(written)
        del manifest["sha256"]
        # Byte for byte, so that no flipped bit passes as another spelling of the same JSON.
        whole = _render(manifest) == written
    except (ValueError, TypeError, KeyError) as error:
        raise _Damage(f"{path} is no manifest: {_reason(error)}") from error
    if not whole:
        raise _Damage(f"{path} has another SHA-256 than it says")
    if (manifest.get("format"), manifest.get("step")) != (_FORMAT, step):
        raise _Damage(f"{path} is of another step or format")
    return manifest


def _render(manifest: Mapping[str, Any]) -> bytes:
    """JSON that ends in the SHA-256 of the rest."""
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=1, allow_nan=False).encode() + b"\n"


@contextlib.contextmanager
def _checkpointer() -> "Iterator[ocp.Checkpointer]":
    import orbax.checkpoint as ocp

    # In a run of several processes none waits here for the others.
    process = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process_{process}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    logger = logging.getLogger("absl")
    logger.addFilter(_is_no_traceback)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer
    finally:
        logger.removeFilter(_is_no_traceback)


def _is_no_traceback(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that Orbax's threads log: it raises the same errors."""
    return not record.exc_info


def _leaves(tree: PyTree, name: str) -> dict[str, Any]:
    """The leaves by path, all of them arrays or shapes and dtypes."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    for path, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
            raise TypeError(f"{name} must hold arrays, got {type(leaf).__name__} at {path}: make it an array")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} must hold arrays, got a typed key at {path}: take its jax.random.key_data")
    return leaves


def _type(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}[{','.join(map(str, array.shape))}]"


def _native(path: str, leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm" or not array.dtype.isnative:
        raise TypeError(f"state must hold numbers in native order, got {array.dtype} at {path}: convert it")
    return array


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_space(folder: Path, num_bytes: int) -> None:
    # Compression may not help; metadata and the manifest take some kilobytes.
    needed, free = num_bytes + num_bytes // 8 + 2**20, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"the disk must have {needed:,} bytes free, got {free:,}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    """An error in one line."""
    return textwrap.shorten(str(error) or type(error).__name__, 240)
