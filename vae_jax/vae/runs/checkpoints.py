"""Checkpoints of a run: the latest few and the best, each verified before it is used.

A checkpoint is a folder `<step>`, or `<step>.<generation>` where a step was saved again. It is assembled under a hidden
name, synced to the disk and renamed last, so that one which can be seen is whole.
"""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from jaxtyping import PyTree

from vae_jax.files import reason, require_plain_folder
from vae_jax.vae.runs.checkpoint_files import (
    CheckpointError,
    Damage,
    leaves_of,
    native_array,
    read_checkpoint,
    read_manifest,
    require_space,
    sync,
    write_checkpoint,
)

_NAME = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_HIDDEN = ".partial-"


class Restored(NamedTuple):
    """The content of a checkpoint."""

    step: int
    state: PyTree
    """NumPy arrays with the bits that were saved, in the structure that was asked for."""
    score: float | None
    about: dict[str, Any]
    """What was saved with the state about its run."""


class Checkpoints:
    """The checkpoints in a folder. Only saving changes it, and makes it where it is absent.

    Args:
        folder: their folder; one process at a time may save there.
        num_kept: how many of the latest are kept, besides the best by score.
    """

    def __init__(self, folder: Path, *, num_kept: int = 2):
        if num_kept < 1:
            raise ValueError(f"num_kept must be at least 1, got {num_kept}: keep the latest checkpoint")
        self._folder = folder.absolute()
        self._num_kept = num_kept
        self._damaged: set[Path] = set()

    def save(
        self, step: int, state: PyTree, *, score: float | None, about: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Saves a checkpoint, then removes those that are neither among the latest nor the best.

        When this returns it is on the disk and has been read back. An earlier one of the same step goes once the new
        one is there. In a run of several processes, process 0 saves.

        Args:
            step: its number, not negative.
            state: a pytree of NumPy or JAX arrays; a typed key as its `jax.random.key_data`.
            score: the higher the better; among equals the earlier step is better. One that is not finite is as None.
            about: facts about the run that JSON can hold, which are restored with the state.

        Raises:
            CheckpointError: it cannot be written; earlier checkpoints are kept.
            OtherSchema: the folder holds a checkpoint of another version of the library, which is kept.
            TypeError: a leaf of `state` is not an array.
            ValueError: `step` is negative, or this is not process 0.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}: count steps from the start of the run")
        if jax.process_index():  # Orbax would write a NumPy array nowhere, and not say so.
            raise ValueError(f"save must be called in process 0, got process {jax.process_index()}: save there alone")
        arrays = {path: native_array(path, leaf) for path, leaf in jax.device_get(leaves_of(state, "state")).items()}
        finite_score = score if score is not None and math.isfinite(score) else None
        generation = max((found.generation + 1 for found in self._found() if found.step == step), default=0)
        final = self._folder / (f"{step}.{generation}" if generation else f"{step}")
        partial = final.with_name(f"{_HIDDEN}{final.name}")
        try:
            require_plain_folder(self._folder)
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True)
                sync(self._folder.parent)
            self._sweep()
            require_space(self._folder, sum(array.nbytes for array in arrays.values()))
            write_checkpoint(partial, step, arrays, finite_score, about)
            partial.rename(final)
            sync(self._folder)
        except Exception as error:  # Orbax raises anything.
            raise CheckpointError(
                f"checkpoint of step {step} cannot be saved as {final}: {reason(error)}; earlier ones are "
                "kept: see that the folder can be written to and the disk has room, then resume"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._damaged.discard(final)
        self._retain()

    def check_space(self, like: PyTree) -> None:
        """Refuses a disk without room for two checkpoints: a new one is whole before an old one goes.

        Raises:
            CheckpointError: there is too little.
        """
        size = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves_of(like, "like").values())
        existing = next(each for each in (self._folder, *self._folder.parents) if each.exists())
        try:
            require_space(existing, 2 * size)
        except OSError as error:
            raise CheckpointError(
                f"checkpoints cannot be saved in {self._folder}: {reason(error)}: make room"
            ) from error

    def restore_latest(self, like: PyTree, *, on_damage: Callable[[str], None]) -> Restored:
        """The newest undamaged checkpoint.

        Args:
            like: arrays or `jax.ShapeDtypeStruct`s of the structure, shapes and dtypes that the state must have.
            on_damage: called with a line for each damaged checkpoint that is passed over, and the one used instead.

        Raises:
            CheckpointError: there is none, or it has other leaves, shapes or dtypes than `like`.
            OtherSchema: the folder holds a checkpoint of another version of the library.
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
            raise CheckpointError(f"checkpoints in {self._folder} cannot be read: {reason(error)}") from error
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        found = [_find(self._folder / match[0], int(match[1]), int(match[2] or 0)) for match in matches]
        return sorted(found, key=lambda each: (each.step, each.generation), reverse=True)

    def _restore(self, candidates: "list[_Found]", like: PyTree, on_damage: Callable[[str], None]) -> Restored:
        expected = leaves_of(like, "like")
        damage: list[str] = []
        for found in candidates:
            try:
                arrays = _read(found, expected)
            except (Damage, OSError) as error:
                self._damaged.add(found.path)
                damage.append(f"checkpoint of step {found.step} is damaged: {error}")
                continue
            for line in damage:
                on_damage(f"{line}; step {found.step} ({found.path}) is used instead")
            state = jax.tree.unflatten(jax.tree.structure(like), [arrays[path] for path in expected])
            chex.assert_trees_all_equal_shapes_and_dtypes(state, like)
            return Restored(found.step, state, found.score, found.about)
        found_instead = "; ".join(damage) or "there is none"
        raise CheckpointError(f"no checkpoint in {self._folder} can be restored: {found_instead}: start the run afresh")

    def _retain(self) -> None:
        """Removes all but the latest and the best of those that are not known to be damaged."""
        found = self._found()
        newest_of_step: dict[int, _Found] = {}
        for each in found:
            if each.manifest is not None and each.path not in self._damaged:
                newest_of_step.setdefault(each.step, each)
        whole = list(newest_of_step.values())
        kept = {each.path for each in (*whole[: self._num_kept], min(whole, key=_merit))}
        # One whose manifest is lost may have been the best: it stays until a reader of the best has reported it.
        kept |= {each.path for each in found if each.manifest is None and each.path not in self._damaged}
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

    @property
    def about(self) -> dict[str, Any]:
        return {} if self.manifest is None else self.manifest["about"]


def _find(path: Path, step: int, generation: int) -> _Found:
    try:
        return _Found(path, step, generation, read_manifest(path, step), "")
    except (Damage, OSError) as error:
        return _Found(path, step, generation, None, str(error))


def _read(found: _Found, expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if found.manifest is None:
        raise Damage(found.damage)
    return read_checkpoint(found.path, found.manifest, expected)


def _merit(found: _Found) -> tuple[int, float, int]:
    """Sorts the best first: any might be whose manifest is lost, then by score, then the newest without one."""
    if found.manifest is None:
        return (0, 0.0, -found.step)
    return (2, 0.0, -found.step) if found.score is None else (1, -found.score, found.step)
