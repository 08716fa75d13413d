"""Files fetched over HTTP, kept only if their SHA-256 is the expected one."""

import hashlib
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from vae_jax.files import reason
from vae_jax.vae.data.image_data import DatasetUnavailable, Progress

if TYPE_CHECKING:
    import requests

TIMEOUT = 10.0
"""Seconds without an answer after which a download fails."""

_BLOCK = 2**16


class RemoteFile(NamedTuple):
    """A file and its contents as they must be."""

    url: str
    num_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]


def fetch_files(
    dataset: str, files: Sequence[RemoteFile], folder: Path, *, by_hand: Path, on_progress: Progress | None = None
) -> None:
    """Puts the files of a dataset into a folder, as far as they are not there yet.

    Each is taken from the folder of those fetched by hand if it is there, or else from its URL. It is checked before it
    is written, so that whatever ends a download leaves no part of a file.

    Args:
        dataset: its name, for messages.
        files: what must be there.
        folder: where the files go.
        by_hand: where files may have been put by hand.
        on_progress: called with the share of the bytes that are there.

    Raises:
        DatasetUnavailable: no network, a file that is not the expected one, or a folder that cannot be written to.
    """
    num_bytes, total = 0, sum(file.num_bytes for file in files)

    def count(num_more: int) -> None:
        nonlocal num_bytes
        num_bytes += num_more
        if on_progress is not None:
            on_progress(f"downloading {dataset}", min(num_bytes / total, 1.0))

    for file in files:
        path, manual = folder / file.name, by_hand / file.name
        if _sha256(path) == file.sha256:
            count(file.num_bytes)
        elif _sha256(manual) == file.sha256:
            _write(path, manual.read_bytes())
            count(file.num_bytes)
        else:
            try:
                _write(path, _download(file, count))
            except _Failed as failed:
                names = ", ".join(file.name for file in files)
                wrong = f" (the {file.name} there is another file, by its SHA-256)" if manual.exists() else ""
                raise DatasetUnavailable(
                    f"{dataset} could not be downloaded from {file.url}: {failed}; put {names} into {by_hand}{wrong}, "
                    "or take digits or a folder of IDX files"
                ) from failed


class _Failed(Exception):
    """A file could not be downloaded, for the reason given."""


def _download(file: RemoteFile, count: Callable[[int], None]) -> bytes:
    import requests

    content = bytearray()
    try:
        with _answer(file.url) as response:
            response.raise_for_status()
            for block in response.iter_content(_BLOCK):
                content += block
                count(len(block))
                if len(content) > file.num_bytes:
                    break
    except requests.RequestException as error:
        raise _Failed(_innermost_reason(error)) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != file.sha256:
        raise _Failed(
            f"what came is damaged or another file, with SHA-256 {sha256} where {file.sha256} is expected, so try again"
        )
    return bytes(content)


def _answer(url: str) -> "requests.Response":
    """The answer of a server within the time limit.

    It is asked in a thread: a socket's limit is for each address of a host anew, and none holds for finding them.
    """
    import requests

    answers: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(requests.get(url, stream=True, timeout=TIMEOUT))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        raise _Failed(f"no answer within {TIMEOUT:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _innermost_reason(error: "requests.RequestException") -> str:
    """The innermost reason, without the layers of libraries around it."""
    if error.response is not None:
        return f"the server answered {error.response.status_code} ({error.response.reason})"
    inner: BaseException = error
    while (within := inner.__cause__ or inner.__context__) is not None:
        inner = within
    if isinstance(inner, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return getattr(inner, "strerror", None) or reason(inner)


def _sha256(path: Path) -> str | None:
    """The checksum of a file, or None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all.

    Raises:
        DatasetUnavailable: the folder cannot be made or written to.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError as error:
        raise DatasetUnavailable(
            f"{path.name} could not be kept in {path.parent}: {error.strerror}; make room or name another data_dir"
        ) from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)
