"""Images in NumPy's files, and arrays of other types as uint8."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8
from numpy.lib import format as npy

from vae_jax.files import reason
from vae_jax.vae.data.aligned_memory import aligned_empty, read_into
from vae_jax.vae.data.image_data import DatasetMisuse, DatasetUnavailable, Split, chunks

ARRAY_NAMES = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels")),
    "validation": (("validation_images", "validation_labels"), ("x_validation", "y_validation")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
"""Names that the images and labels of a split may have in an .npz."""

_MAGIC = {".npz": b"PK", ".npy": b"\x93NUMPY"}

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_numpy_file(path: Path) -> dict[str, Split]:
    """The splits of an .npz under the names of `ARRAY_NAMES`, or the images of an .npy as "train".

    Raises:
        DatasetMisuse: another format, no images, Python objects, or arrays that are not images or labels.
        DatasetUnavailable: the file is damaged or cannot be read.
    """
    arrays = _read_arrays(path)
    splits = {}
    for split, names in ARRAY_NAMES.items():
        for images_name, labels_name in names:
            if images_name in arrays:
                images = uint8_images(arrays[images_name], f"{images_name} of {path}")
                labels = arrays.get(labels_name)
                labels = None if labels is None else _labels_of(labels, f"{labels_name} of {path}")
                splits[split] = Split(images, labels)
                break
    return splits


def _read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            magic = _MAGIC[path.suffix]
            if file.read(len(magic)) != magic:
                raise DatasetMisuse(
                    f"{path} must be an {path.suffix} file, got another format: save it with numpy.savez or numpy.save"
                )
            file.seek(0)
            if path.suffix == ".npz":
                with np.load(file, allow_pickle=False) as archive:
                    return {name: _read_member(archive, name) for name in _known_names(archive.files, path)}
            array = _read_array(file)
            if file.read(1):
                raise EOFError("it goes on after its array")
            return {"images": array}
    except DatasetMisuse:
        raise
    except OSError as error:
        raise DatasetUnavailable(f"{path} could not be read: {error.strerror or error}") from error
    # Whatever else damage leads NumPy and zipfile into, such as a compression that does not exist.
    except Exception as error:
        if "allow_pickle" in str(error):
            raise DatasetMisuse(
                f"{path} must hold arrays of numbers, got Python objects, which are never loaded: save plain arrays"
            ) from error
        raise DatasetUnavailable(f"{path} is damaged ({reason(error)}): fetch it again") from error


def _read_member(archive: Any, name: str) -> np.ndarray:
    with archive.zip.open(f"{name}.npy") as file:
        array = _read_array(file)
        # The archive checks what it holds when it comes to its end.
        if file.read(1):
            raise EOFError(f"{name} goes on after its array")
        return array


def _read_array(file: Any) -> np.ndarray:
    """An array in NumPy's format; one of uint8 in memory that a device can take over."""
    start = file.tell()
    read_header = _HEADERS.get(npy.read_magic(file))
    shape, is_fortran, dtype = ((), True, None) if read_header is None else read_header(file)
    if dtype != np.uint8 or is_fortran:
        file.seek(start)
        return npy.read_array(file, allow_pickle=False)
    array = aligned_empty(shape)
    read_into(array, file)
    return array


def _known_names(names: Sequence[str], path: Path) -> list[str]:
    """The names that are ours, of which one must be of training images."""
    if not any(images_name in names for images_name, _ in ARRAY_NAMES["train"]):
        raise DatasetMisuse(
            f"{path} must hold an array named train_images, x_train or images, got {', '.join(names) or 'none'}: "
            "rename its arrays"
        )
    return [name for pairs in ARRAY_NAMES.values() for pair in pairs for name in pair if name in names]


def uint8_images(array: np.ndarray, what: str) -> UInt8[np.ndarray, "N ..."]:
    """An array [N, H, W], [N, H, W, 1 or 3] or flat [N, X] as images of uint8 from 0 to 255.

    One channel is left out of the shape, and flat images become square where X is a square. Booleans become 0 and 255.
    Floats must be k/255, as 0 and 1 are. Integers must be from 0 to 255, and reach above 1: black and white in 0 and 1
    would be all but black.

    Raises:
        DatasetMisuse: another shape, type or range. It says `what` it was.
    """
    images = _with_image_shape(array, what)
    kind = images.dtype.kind
    if kind not in "buif":
        raise DatasetMisuse(f"{what} must be of numbers, got {images.dtype}: save it as uint8")
    if kind in "ui" and images.size and (images.min() < 0 or images.max() > 255 or images.max() == 1):
        raise DatasetMisuse(
            f"{what} must have integers from 0 to 255, got {images.min()} to {images.max()}: save images in black and "
            "white as bool, and scale others"
        )
    if images.dtype == np.uint8:
        return images
    converted = aligned_empty(images.shape)
    for chunk in chunks(len(images)):
        part = images[chunk]
        converted[chunk] = _scaled_floats(part, what) if kind == "f" else part * 255 if kind == "b" else part
    return converted


def _scaled_floats(chunk: np.ndarray, what: str) -> np.ndarray:
    # What is infinite or NaN is near nothing, and is refused with the rest.
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(np.asarray(chunk, np.float64) * 255)
        near = np.abs(scaled / 255 - chunk) <= 1e-6
    if not (near & (scaled >= 0) & (scaled <= 255)).all():
        raise DatasetMisuse(
            f"{what} must have floats k/255 with k from 0 to 255, got {chunk.min():g} to {chunk.max():g}: round them "
            "to uint8 from 0 to 255"
        )
    return scaled


def _with_image_shape(array: np.ndarray, what: str) -> np.ndarray:
    if array.ndim == 2:
        side = math.isqrt(array.shape[1])
        return array.reshape(len(array), side, side) if side * side == array.shape[1] else array
    if array.ndim == 4 and array.shape[3] == 1:
        return array[..., 0]
    if array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3):
        return array
    raise DatasetMisuse(
        f"{what} must have shape [N, H, W], [N, H, W, 1 or 3] or [N, X], got {list(array.shape)}: put the images along "
        "the first axis and the channels along the last"
    )


def _labels_of(array: np.ndarray, what: str) -> Int32[np.ndarray, " N"]:
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1 or labels.dtype.kind not in "ui":
        raise DatasetMisuse(f"{what} must be integers [N], got {labels.dtype} {list(labels.shape)}: number the classes")
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise DatasetMisuse(f"{what} must be classes from 0, got {labels.min()} to {labels.max()}: number them")
    return labels.astype(np.int32)
