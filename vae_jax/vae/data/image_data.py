"""Images as arrays, split for training, validation and test."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int32, UInt8

Progress: TypeAlias = Callable[[str, float | None], None]
"""Called with what is being done and the share of it that is done, from 0 to 1, or None where that is not known."""

IMAGES_IN_CHUNK = 4096
"""Images that are converted at once: all of them in float64 would take eight times their memory."""


def chunks(num_images: int) -> Iterator[slice]:
    """Slices of images that are converted one after another."""
    for start in range(0, num_images, IMAGES_IN_CHUNK):
        yield slice(start, min(start + IMAGES_IN_CHUNK, num_images))


class DatasetMisuse(ValueError):
    """The caller named no dataset, or not one of images. One line."""


class DatasetUnavailable(RuntimeError):
    """A dataset is out of reach through no fault of the caller's: no network, a damaged file, a full disk. One line."""


class Split(NamedTuple):
    """Images and their classes."""

    images: UInt8[np.ndarray, "N ..."]
    """Pixels from 0, a black background, to 255."""
    labels: Int32[np.ndarray, " N"] | None
    """Classes of the images from 0, or None where they are unknown."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images of one shape with values from 0 (a black background) to 255, in three disjoint splits.

    Example:
        >>> from vae_jax.vae import load_images
        >>> images = load_images("digits", num_validation=0)
        >>> images.train.images.dtype.name, images.train.images.max().item(), images.train.labels.max().item()
        ('uint8', 255, 9)
        >>> len(images.validation.images)
        0
    """

    name: str
    """The name or path that `load_images` was given."""
    train: Split
    validation: Split
    """Images held out of training. Empty where none are."""
    test: Split
    num_classes: int | None
    """Number of classes; None without labels."""
    source: str
    """Origin of the images, in one line."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image: (height, width), (height, width, 3) in colour, or (pixels,) where there are no rows."""
        return self.train.images.shape[1:]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 in hexadecimal of every split's shape and values. It is computed at its first use."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in split:
                digest.update(b"none" if array is None else f"{array.dtype} {array.shape}".encode())
                if array is not None:
                    digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def split_images(
    name: str,
    source: str,
    splits: Mapping[str, Split],
    *,
    num_classes: int | None = None,
    num_validation: int | None = None,
) -> ImageData:
    """Splits what a source holds.

    Without a test split the last sixth of the training images is it. The validation images are the last of the
    remaining training images.

    Args:
        name: the name or path that the images were asked for by.
        source: their origin.
        splits: "train" and, where the source has them, "validation" and "test".
        num_classes: by default one more than the largest label.
        num_validation: how many training images validation takes. None is the source's own validation split or, if it
            has none, a twelfth of the training images. A number leaves the source's own split out.

    Raises:
        DatasetMisuse: no training images, splits that do not fit together, or a num_validation that leaves none.
    """
    _check_splits(source, splits)
    train, validation, test = splits["train"], splits.get("validation"), splits.get("test")
    if test is None:
        train, test = _cut(train, len(train.images) // 6)
        source += ", its last sixth as test"
    if validation is None or num_validation is not None:
        num_train = len(train.images)
        num_validation = num_train // 12 if num_validation is None else num_validation
        if not 0 <= num_validation < num_train:
            raise DatasetMisuse(
                f"num_validation must be from 0 to {num_train - 1}, got {num_validation}: {source} has {num_train} "
                "training images and validation takes some of them"
            )
        train, validation = _cut(train, num_validation)
    if num_classes is None:
        largest = [split.labels.max() for split in splits.values() if split.labels is not None and split.labels.size]
        num_classes = int(max(largest)) + 1 if largest else None
    return ImageData(name, train, validation, test, num_classes, source)


def _check_splits(source: str, splits: Mapping[str, Split]) -> None:
    shape = splits["train"].images.shape[1:]
    if not splits["train"].images.size:
        raise DatasetMisuse(f"{source} must hold training images, got an array of shape (0, ...): name another dataset")
    for name, (images, labels) in splits.items():
        if images.shape[1:] != shape:
            raise DatasetMisuse(
                f"{source} must hold images of one shape, got {shape} in train and {images.shape[1:]} in {name}: crop "
                "or pad them"
            )
        if labels is not None and len(labels) != len(images):
            raise DatasetMisuse(
                f"{source} must hold a label an image, got {len(labels)} labels and {len(images)} images in {name}: "
                "leave the labels out or fix them"
            )


def _cut(split: Split, num_last: int) -> tuple[Split, Split]:
    """All but the last images, and the last."""
    first = len(split.images) - num_last
    images, labels = split
    if labels is None:
        return Split(images[:first], None), Split(images[first:], None)
    return Split(images[:first], labels[:first]), Split(images[first:], labels[first:])
