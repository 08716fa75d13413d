"""The IDX format that MNIST and its kin are distributed in."""

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vae_jax.vae.data.aligned_memory import aligned_empty, read_into
from vae_jax.vae.data.image_data import DatasetMisuse, DatasetUnavailable, Split

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Names of the files of images and of labels."""

LARGEST_RATIO = 1032
"""Most bytes that one byte of a gzip file can unpack to."""


def read_idx_folder(folder: Path) -> dict[str, Split]:
    """The images of a folder of IDX files under their usual names, gzip'd or not; labels may be missing.

    A dot may stand in the place of the dash before "idx".

    Raises:
        DatasetMisuse: no images under those names, or a file of another format.
        DatasetUnavailable: a file that is damaged or cannot be read.
    """
    splits = {}
    for split, (images_name, labels_name) in IDX_FILES.items():
        images_file, labels_file = _find(folder, images_name), _find(folder, labels_name)
        if images_file is None:
            raise DatasetMisuse(
                f"{folder} must hold IDX files of images, got no {images_name}[.gz] in it: name the folder that does"
            )
        labels = None if labels_file is None else read_idx(labels_file, 1).astype(np.int32)
        splits[split] = Split(read_idx(images_file, 3), labels)
    return splits


def _find(folder: Path, name: str) -> Path | None:
    names = (name, name.replace("-idx", ".idx"))
    candidates = [folder / f"{stem}{suffix}" for stem in names for suffix in ("", ".gz")]
    return next((file for file in candidates if file.is_file()), None)


def read_idx(path: Path, num_axes: int) -> UInt8[np.ndarray, "..."]:
    """The bytes of an IDX file, gzip'd or not, as an array.

    Raises:
        DatasetMisuse: another format, type or number of axes.
        DatasetUnavailable: the file is damaged (its length and, if gzip'd, its CRC are checked) or cannot be read.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return _read_stream(gzip.GzipFile(fileobj=file) if zipped else file, path, num_axes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetUnavailable(f"{path} is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise DatasetUnavailable(f"{path} could not be read: {error.strerror}") from error


def _read_stream(stream: io.BufferedIOBase, path: Path, num_axes: int) -> UInt8[np.ndarray, "..."]:
    header = stream.read(4 + 4 * num_axes)
    magic = bytes((0, 0, 8, num_axes))
    if header[:4] != magic:
        raise DatasetMisuse(
            f"{path} must be an IDX file of uint8 with {num_axes} axes, which starts with {magic.hex(' ')}, got "
            f"{header[:4].hex(' ') or 'nothing'}: fetch the right file"
        )
    if len(header) < 4 + 4 * num_axes:
        raise EOFError("it ends within its header")
    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    size = math.prod(shape)
    # A damaged header must not claim all memory.
    if size > LARGEST_RATIO * path.stat().st_size:
        raise EOFError(f"it is too short for the {shape} bytes that it announces")
    array = aligned_empty(shape)
    read_into(array, stream)
    if stream.read(1):
        raise EOFError(f"it goes on after the {shape} bytes that it announces")
    return array
