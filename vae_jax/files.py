"""Files that are written whole or not at all, so that they outlive the process, and why one cannot be read."""

import contextlib
import csv
import json
import math
import os
import shutil
import stat
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None

LONGEST_REASON = 240
"""Characters."""

UNFINISHED = ".partial-"
"""Beginning of the names of files and folders that are not finished."""

LONGEST_MOVE = 1.0
"""Seconds that the end of the process waits for finished files to reach their place."""

_unfinished: set[Path] = set()
"""Unfinished files and folders of this process."""

_made: list[Path] = []
"""Folders that were made for results that are not there yet."""

_moving = threading.Lock()


class FolderInUse(OSError):
    """Another process writes to a folder. The message is one line."""


class UnsafePath(OSError):
    """A path is a link, a device or another kind of file than is written. The message is one line."""


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that takes the place of `path` when the block ends without an error.

    It is written under a random name in the same folder, which no one else can have made.

    Args:
        path: the file.
        mode: w for text, wb for bytes.

    Raises:
        UnsafePath: there is something other than a plain file.
    """
    require_plain_file(path)
    prefix = f"{UNFINISHED}{path.name}-"
    remove_abandoned(path.parent, prefix)
    with contextlib.ExitStack() as stack:
        unfinished, descriptor = stack.enter_context(_unfinished_path(lambda: _new_file(prefix, path.parent)))
        file = stack.enter_context(os.fdopen(descriptor, mode, newline="" if mode == "w" else None, closefd=False))
        yield file
        file.flush()
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.fsync(descriptor)
        os.replace(unfinished, path)


@contextlib.contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """A new folder in another one, for files that are moved out of it when they are finished. It is removed at the end.

    Those that a process left when it was killed are removed first.
    """
    remove_abandoned(parent, UNFINISHED)
    with _unfinished_path(lambda: Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))) as (folder, _):
        yield folder


def _new_file(prefix: str, folder: Path) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=folder)
    os.close(descriptor)
    return Path(name)


@contextlib.contextmanager
def _unfinished_path(make: Callable[[], Path]) -> Iterator[tuple[Path, int]]:
    """A new file or folder, locked and removed at the end unless it has been renamed, with its open descriptor."""
    while True:
        path = make()
        descriptor = os.open(path, (os.O_RDONLY if path.is_dir() else os.O_RDWR) | os.O_NOFOLLOW)
        _unfinished.add(path)
        with contextlib.suppress(BlockingIOError):
            _lock(descriptor)
            # Until it was locked another process could have taken it for an abandoned one.
            if path.exists():
                break
        os.close(descriptor)
        _unfinished.discard(path)
    try:
        yield path, descriptor
    finally:
        _remove(path)
        os.close(descriptor)
        _unfinished.discard(path)


@contextlib.contextmanager
def new_folders(folder: Path) -> Iterator[None]:
    """Makes a folder and those on the way to it. If the block fails, those that were made and are empty go again."""
    made = []
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            with contextlib.suppress(FileExistsError):
                missing.mkdir()
                made.append(missing)
                _made.append(missing)
        yield
    except BaseException:
        _remove_empty(made)
        raise
    finally:
        _made[:] = [each for each in _made if each not in made]


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in reversed(list(folders)):
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def publishing() -> Iterator[None]:
    """Finished files move to their place within the block, which the end of the process waits for."""
    with _moving:
        yield


def remove_unfinished() -> None:
    """Removes the unfinished files and folders of this process, which is about to end."""
    has_lock = _moving.acquire(timeout=LONGEST_MOVE)
    for path in list(_unfinished):
        _remove(path)
    _remove_empty(_made)
    if has_lock:
        _moving.release()


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes the unfinished files and folders in a folder that no living process has locked."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                _lock(descriptor)
                _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from a folder until the block ends or this process does, however that happens.

    Raises:
        FolderInUse: another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            _lock(descriptor)
        except BlockingIOError:
            raise FolderInUse(
                f"{folder} must not be in use, got another process that writes there: wait for it, or name another"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Locks an open file or folder for this process.

    Raises:
        BlockingIOError: another process has locked it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # A file system without locks.


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_plain_file(path: Path) -> None:
    """Refuses a path at which there is something other than a plain file.

    Raises:
        UnsafePath: a link, a folder, a device, a pipe or a socket.
    """
    _require(path, stat.S_ISREG, "a plain file")


def require_plain_folder(path: Path) -> None:
    """Refuses a path at which there is something other than a folder.

    Raises:
        UnsafePath: a link, even to a folder, or a file of any kind.
    """
    _require(path, stat.S_ISDIR, "a folder")


_KINDS = {
    "a symbolic link": stat.S_ISLNK,
    "a folder": stat.S_ISDIR,
    "a plain file": stat.S_ISREG,
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
}


def _require(path: Path, is_right: Any, expected: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not is_right(mode):
        found = next((kind for kind, is_kind in _KINDS.items() if is_kind(mode)), "a device")
        raise UnsafePath(f"{path} must be {expected}, got {found}: remove it, or name another")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, with null for what is not finite: JSON has no NaN."""
    with replacing(path) as file:
        file.write(json.dumps(json_ready(content), indent=1, allow_nan=False) + "\n")


def append_json_line(path: Path, content: Any) -> None:
    """Adds a line of JSON to a file, on disk when this returns. A line that was cut short in writing ends before it.

    Raises:
        UnsafePath: there is something other than a plain file.
    """
    append_line(path, json.dumps(json_ready(content), allow_nan=False))


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file, as `append_json_line`."""
    require_plain_file(path)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, 0o666), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        is_torn = size > 0 and file.seek(size - 1) is not None and file.read(1) != b"\n"
        file.write(b"\n" * is_torn + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows under the header of their keys."""
    with replacing(path) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def json_ready(content: Any) -> Any:
    """The content as JSON can hold it: null for floats that are not finite, text for paths."""
    if isinstance(content, Mapping):
        return {key: json_ready(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_ready(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return str(content) if isinstance(content, Path) else content


def reason(error: BaseException) -> str:
    """The message of an error in one line, or its type where it has none."""
    return textwrap.shorten(str(error) or type(error).__name__, LONGEST_REASON)
