"""Datasets of images: by name, from files, or bundled."""

import hashlib
import re
from pathlib import Path

import numpy as np

from vae_jax.vae.data.idx_files import read_idx_folder
from vae_jax.vae.data.image_data import DatasetMisuse, DatasetUnavailable, ImageData, Progress, Split, split_images
from vae_jax.vae.data.numpy_files import read_numpy_file
from vae_jax.vae.data.tfds_images import BUILDERS, default_data_dir, prepare_dataset, read_prepared_dataset

__all__ = ["DatasetMisuse", "DatasetUnavailable", "ImageData", "Progress", "Split", "load_images"]


def load_images(
    data: str,
    *,
    data_dir: str | Path | None = None,
    num_validation: int | None = None,
    on_progress: Progress | None = None,
) -> ImageData:
    """Loads images for training, validation and test, as uint8 from 0 (a black background) to 255.

    Args:
        data: one of
            - mnist, fashion_mnist or kmnist: through TFDS, downloaded and prepared in `data_dir` if they are not there;
            - digits: the 8x8 digits that scikit-learn bundles (see `load_digits`), for which no network is needed;
            - another dataset of TFDS that is already prepared in `data_dir`;
            - the path of a folder of IDX files, of an .npz or of an .npy (see `vae_jax.vae.data.numpy_files` for what
              they may hold). The names above win over a path: ./mnist is the path.
        data_dir: folder in which TFDS keeps datasets, by default the one that TFDS_DATA_DIR names or
            ~/tensorflow_datasets. Files put into its subfolder downloads/manual by hand need no network.
        num_validation: number of the last training images that are held out for validation. By default the source's own
            validation split or, if it has none, a twelfth of the training images; 0 holds out none.
        on_progress: called with the name of the current task and the share of it that is done.

    Raises:
        DatasetMisuse: the dataset does not exist or holds no images, or `num_validation` is out of range. The message
            is one line.
        DatasetUnavailable: there is no network, a file is damaged, a checksum is wrong or the disk is full. The message
            is one line.

    Example:
        >>> from vae_jax.vae import load_images
        >>> images = load_images("digits")
        >>> [len(split.images) for split in (images.train, images.validation, images.test)]
        [1374, 124, 299]
        >>> images.shape, images.num_classes
        ((8, 8), 10)
    """
    if num_validation is not None and num_validation < 0:
        raise DatasetMisuse(f"num_validation must be a number of training images, got {num_validation}: 0 takes none")
    folder = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    if data == "digits":
        return split_images(data, "scikit-learn digits", {"train": load_digits()}, num_validation=num_validation)
    prepared = read_prepared_dataset(data, folder, on_progress) if _may_be_prepared(data, folder) else None
    if prepared is None and data in BUILDERS:
        prepare_dataset(data, folder, on_progress)
        prepared = read_prepared_dataset(data, folder, on_progress)
    if prepared is not None:
        source, splits, num_classes = prepared
        return split_images(data, source, splits, num_classes=num_classes, num_validation=num_validation)
    path = Path(data).expanduser()
    if path.is_dir():
        return split_images(data, f"IDX files in {path}", read_idx_folder(path), num_validation=num_validation)
    if path.suffix in (".npz", ".npy") and path.is_file():
        return split_images(data, f"NumPy file {path}", read_numpy_file(path), num_validation=num_validation)
    raise DatasetMisuse(
        f"data must be {', '.join(BUILDERS)}, digits, a dataset prepared in {folder}, or the path of a folder of IDX "
        f"files, an .npz or an .npy, got {data!r}{'' if path.exists() else ', which does not exist'}: name one of them"
    )


def located(data: str, data_dir: str | Path | None = None) -> str:
    """The same dataset named so that it is found from any folder: a path becomes absolute, a name stays."""
    folder = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    path = Path(data).expanduser()
    is_name = data == "digits" or data in BUILDERS or _may_be_prepared(data, folder)
    return data if is_name or not path.exists() else str(path.resolve())


def _may_be_prepared(data: str, data_dir: Path) -> bool:
    """Whether it has the form of a TFDS name, such as emnist/digits:3.1.0, and a folder: TFDS is slow to import."""
    is_name = re.fullmatch(r"\w+(/[\w-]+)?(:[\d.]+)?", data) is not None
    return is_name and (data_dir / data.replace(":", "/")).is_dir()


def load_digits() -> Split:
    """The 1,797 digits of 8x8 pixels that scikit-learn bundles, in the order of the SHA-256 of their numbers.

    Scikit-learn has them sorted by writer: in this order, any part of them is of all writers. The hash is of the number
    in decimal, from 0. A value v from 0 to 16 becomes 255 v / 16 rounded to the nearest, halves up.

    Reference: Alpaydin & Kaynak (1998), Optical recognition of handwritten digits, UCI repository.
    """
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    order = sorted(range(len(pixels)), key=lambda number: hashlib.sha256(str(number).encode()).digest())
    values = np.asarray(pixels, np.int32)[order].reshape(-1, 8, 8)
    return Split(((255 * values + 8) // 16).astype(np.uint8), np.asarray(labels, np.int32)[order])
