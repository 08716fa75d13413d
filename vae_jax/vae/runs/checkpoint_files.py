"""The files of one checkpoint: an Orbax checkpoint of the leaves by their paths, and a manifest that verifies them.

`state/` is written by Orbax. `manifest.json`, written last, holds the SHA-256 of every file, of every leaf's bytes and
of itself. Of Orbax only the synchronous `Checkpointer` is used: its `CheckpointManager` publishes a step, and deletes
older ones, before anything is synced or a manifest can be in it.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vae_jax.files import reason
from vae_jax.sealed_json import sealed, unsealed
from vae_jax.vae.runs.schema_version import SCHEMA_VERSION, check_schema_version

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_STATE = "state"
_MANIFEST = "manifest.json"


class CheckpointError(Exception):
    """A checkpoint cannot be saved or restored. The message is one line that names the step and the file."""


class Damage(Exception):
    """A file is not as it was saved."""


def write_checkpoint(
    folder: Path, step: int, arrays: Mapping[str, np.ndarray], score: float | None, about: Mapping[str, Any]
) -> None:
    """Makes a checkpoint, synced, with its manifest last."""
    folder.mkdir()
    # Orbax refuses arrays without elements; their shapes are in the manifest.
    stored = {path: array for path, array in arrays.items() if array.size}
    if stored:
        with _checkpointer() as checkpointer:
            checkpointer.save(folder / _STATE, stored)
    for path in folder.rglob("*"):
        sync(path)
    leaves = {path: {"type": _type(array), "sha256": _digest(array)} for path, array in arrays.items()}
    _load(folder / _STATE, leaves, arrays)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "score": score,
        "about": dict(about),
        "leaves": leaves,
        "files": {name: _file_digest(path) for name, path in _files(folder).items()},
    }
    (folder / _MANIFEST).write_bytes(sealed(manifest))
    sync(folder / _MANIFEST)
    sync(folder)


def read_checkpoint(folder: Path, manifest: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The leaves by path of a checkpoint that holds those expected.

    Raises:
        Damage: it is not as it was saved.
        CheckpointError: it is, and holds others.
    """
    _require_same(folder, manifest, expected)
    _verify_files(folder, manifest["files"])
    return _load(folder / _STATE, manifest["leaves"], expected)


def _load(state: Path, leaves: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that Orbax reads, verified leaf by leaf."""
    try:
        with _checkpointer() as checkpointer:
            arrays = checkpointer.restore(state) if state.exists() else {}
    except Exception as error:  # Orbax raises anything.
        raise Damage(f"{state} cannot be read: {reason(error)}") from error
    arrays |= {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in like.items() if 0 in leaf.shape}
    for path, leaf in leaves.items():
        if path not in arrays or _type(arrays[path]) != leaf["type"] or _digest(arrays[path]) != leaf["sha256"]:
            raise Damage(f"{state} gives other bits for {path} than were saved")
    return arrays


def _require_same(folder: Path, manifest: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    held = {path: leaf["type"] for path, leaf in manifest["leaves"].items()}
    asked = {path: _type(leaf) for path, leaf in expected.items()}
    for path in {**asked, **held}:
        wanted, found = asked.get(path, "absent"), held.get(path, "none")
        if path not in asked or path not in held or wanted != found:
            raise CheckpointError(
                f"checkpoint of step {manifest['step']} is of another model: {path} must be {wanted}, got {found} in "
                f"{folder}: restore it with the configuration it was saved with"
            )


def _verify_files(folder: Path, digests: Mapping[str, str]) -> None:
    files = _files(folder)
    for name in sorted({*digests, *files} - {_MANIFEST}):
        if name not in files:
            raise Damage(f"{folder / name} is missing")
        if name not in digests:
            raise Damage(f"{files[name]} is not in the manifest")
        if _file_digest(files[name]) != digests[name]:
            raise Damage(f"{files[name]} has another SHA-256 than in the manifest")


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their relative paths, all of them regular."""
    if folder.is_symlink():
        raise Damage(f"{folder} is a symbolic link")
    found = {}
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path.relative_to(folder).as_posix()] = path
            elif not stat.S_ISDIR(mode):
                raise Damage(f"{path} is {'a symbolic link' if stat.S_ISLNK(mode) else 'no regular file'}")
    return found


def read_manifest(folder: Path, step: int) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        Damage: it is missing, or not as it was written.
        OtherSchema: another version of the library wrote it.
    """
    path = folder / _MANIFEST
    if _MANIFEST not in _files(folder):
        raise Damage(f"{path} is missing")
    try:
        manifest = unsealed(path.read_bytes(), path)
    except (ValueError, TypeError) as error:
        raise Damage(reason(error)) from error
    # Before the step is read: what a manifest of another version means is not known.
    check_schema_version(manifest, path)
    if manifest.get("step") != step:
        raise Damage(f"{path} is of another step")
    return manifest


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


def leaves_of(tree: PyTree, name: str) -> dict[str, Any]:
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


def native_array(path: str, leaf: Any) -> np.ndarray:
    """A leaf as an array that can be stored.

    Raises:
        TypeError: it holds no numbers, or in the other byte order.
    """
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm" or not array.dtype.isnative:
        raise TypeError(f"state must hold numbers in native order, got {array.dtype} at {path}: convert it")
    return array


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises an OSError where the disk has too little room for so many bytes."""
    # Compression may not help; metadata and the manifest take some kilobytes.
    needed, free = num_bytes + num_bytes // 8 + 2**20, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"the disk must have {needed:,} bytes free, got {free:,}")


def sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
