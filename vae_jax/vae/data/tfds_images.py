"""Images of TensorFlow Datasets (TFDS), without TensorFlow."""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.files import reason
from vae_jax.vae.data.aligned_memory import aligned_empty
from vae_jax.vae.data.download import RemoteFile, fetch_files
from vae_jax.vae.data.idx_files import IDX_FILES, read_idx
from vae_jax.vae.data.image_data import (
    IMAGES_IN_CHUNK,
    DatasetMisuse,
    DatasetUnavailable,
    Progress,
    Split,
    chunks,
)

BUILDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
"""The datasets that are downloaded and prepared here, and the classes of their builders in TFDS."""


def default_data_dir() -> Path:
    """Where TFDS keeps datasets: the folder that TFDS_DATA_DIR names, or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


class PreparedDataset(NamedTuple):
    """The content of a dataset that TFDS has prepared."""

    source: str
    splits: dict[str, Split]
    num_classes: int | None


class _WithoutTensorFlow:
    """The parts of an official builder that call TensorFlow, to be mixed into it.

    Files are unzipped with Python's gzip, and images are PIL's: TFDS encodes arrays with TensorFlow.
    """

    on_progress: Progress | None
    url_infos: Mapping[str, Any]
    name: str
    URL: str

    @classmethod
    def remote_files(cls) -> list[RemoteFile]:
        """The files of images and of labels, with the checksums that TFDS has registered."""
        urls = [cls.URL + name for names in IDX_FILES.values() for name in map("{}.gz".format, names)]
        return [RemoteFile(url, int(cls.url_infos[url].size), cls.url_infos[url].checksum) for url in urls]

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        # In the folder of manual downloads the manager finds the files by name, and checks them again.
        images, labels, test_images, test_labels = dl_manager.download([file.url for file in self.remote_files()])
        splits = {"train": (images, labels), "test": (test_images, test_labels)}
        return {split: self._generate_examples(*map(Path, paths)) for split, paths in splits.items()}

    def _generate_examples(self, images_file: Path, labels_file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            if self.on_progress is not None and index % IMAGES_IN_CHUNK == 0:
                self.on_progress(f"preparing {self.name}", index / len(images))
            yield index, {"image": Image.fromarray(image), "label": int(label)}

    # TFDS prints to stdout in these two.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def prepare_dataset(name: str, data_dir: Path, on_progress: Progress | None = None) -> None:
    """Downloads a dataset of `BUILDERS` and writes it as TFDS would, unless that has been done.

    The files come from `data_dir`/downloads/manual if they are there. `tfds.builder(name, data_dir=data_dir)` reads the
    result.

    Raises:
        DatasetUnavailable: the files are out of reach, or `data_dir` cannot be written to.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import skip_registration

    official = getattr(tfds.image_classification, BUILDERS[name])
    with _quiet():
        with skip_registration():
            parts = {"__module__": official.__module__, "on_progress": on_progress and staticmethod(on_progress)}
            builder = type(official.__name__, (_WithoutTensorFlow, official), parts)(data_dir=data_dir)
        if builder.data_path.exists():
            return
        downloads = data_dir / "downloads"
        fetch_files(
            name,
            builder.remote_files(),
            downloads / name,
            by_hand=downloads / "manual",
            on_progress=on_progress,
        )
        config = tfds.download.DownloadConfig(
            manual_dir=downloads / name, try_download_gcs=False, force_checksums_validation=True
        )
        try:
            builder.download_and_prepare(download_dir=downloads, download_config=config, file_format="array_record")
        except Exception as error:
            # Another process may have prepared it in the meantime.
            if not builder.data_path.exists():
                raise DatasetUnavailable(
                    f"{name} could not be prepared in {data_dir} ({reason(error)}): make room there or name another "
                    "data_dir"
                ) from error


def read_prepared_dataset(name: str, data_dir: Path, on_progress: Progress | None = None) -> PreparedDataset | None:
    """The images of a dataset that is prepared in `data_dir`, by us or by TFDS; None if there is none of that name.

    The dataset must have images of uint8 and one size under "image", and may have classes under "label".

    Raises:
        DatasetMisuse: a dataset of something else, or in a format that only TensorFlow reads.
        DatasetUnavailable: its files are damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    with _quiet():
        check_feature_classes(data_dir / name.partition(":")[0])
        try:
            builder = tfds.builder(name, data_dir=data_dir)
        except DatasetNotFoundError:
            return None
        except Exception as error:
            raise _damaged(data_dir / name.partition(":")[0], error) from error
        if not builder.data_path.exists():
            return None
        where = f"{builder.info.full_name} in {data_dir}"
        label = _check_features(builder.info.features, where)
        try:
            sources: Any = builder.as_data_source()
        except NotImplementedError as error:
            raise DatasetMisuse(
                f"{where} must be prepared as array_record, got {builder.info.file_format}, which only TensorFlow "
                "reads: name another data_dir"
            ) from error
        except Exception as error:
            raise _damaged(Path(builder.data_dir), error) from error
        if "train" not in sources:
            raise DatasetMisuse(f"{where} must have a split train, got {', '.join(sources)}: name another dataset")
        splits = {
            split: _read_split(builder, sources[split], has_labels=label is not None, on_progress=on_progress)
            for split in ("train", "validation", "test")
            if split in sources
        }
    return PreparedDataset(f"TFDS {builder.info.full_name}", splits, None if label is None else label.num_classes)


def check_feature_classes(folder: Path) -> None:
    """Refuses a prepared dataset whose features.json names a class outside of TFDS, which TFDS would import.

    To import a module is to run it: a dataset from elsewhere could run anything.

    Raises:
        DatasetMisuse: naming the file and the class.
        DatasetUnavailable: the file cannot be read.
    """
    for file in sorted(folder.rglob("features.json")):
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(file, error) from error
        for name in _class_names(content):
            if not (isinstance(name, str) and _FEATURE_CLASS.fullmatch(name)):
                raise DatasetMisuse(f"{file} must name feature classes of TFDS alone, got {name!r}: do not read it")


_FEATURE_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.[a-z_]+\.[A-Z][A-Za-z]*")


def _class_names(content: Any) -> Iterator[Any]:
    """Every name of a class in the JSON of some features, at any depth."""
    if isinstance(content, list):
        for each in content:
            yield from _class_names(each)
    elif isinstance(content, dict):
        # In older versions the name is the type of a content.
        keys = ("pythonClassName", "python_class_name", *(("type",) if "content" in content else ()))
        yield from (content[key] for key in keys if key in content)
        for value in content.values():
            yield from _class_names(value)


def _check_features(features: Any, where: str) -> Any:
    """The feature of the classes, or None where there is none."""
    import tensorflow_datasets as tfds

    named: dict[str, Any] = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image, label = named.get("image"), named.get("label")
    sizes: Any = image.shape if isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8 else (None,)
    if None in sizes:
        raise DatasetMisuse(
            f"{where} must have images of uint8 and one size under the name image, got {image or list(named)}: name "
            "another dataset"
        )
    return label if isinstance(label, tfds.features.ClassLabel) else None


def _read_split(builder: Any, source: Any, *, has_labels: bool, on_progress: Progress | None) -> Split:
    shape = builder.info.features["image"].shape
    images = aligned_empty((len(source), *shape))
    labels = np.empty(len(source), np.int32) if has_labels else None
    for chunk in chunks(len(source)):
        if on_progress is not None:
            on_progress(f"reading {builder.name}", chunk.start / len(source))
        try:
            examples = source.__getitems__(range(chunk.start, chunk.stop))
        except Exception as error:
            raise _damaged(Path(builder.data_dir), error) from error
        for index, example in enumerate(examples, chunk.start):
            images[index] = example["image"]
            if labels is not None:
                labels[index] = example["label"]
    return Split(images[..., 0] if shape[-1] == 1 else images, labels)


def _damaged(folder: Path, error: Exception) -> DatasetUnavailable:
    return DatasetUnavailable(
        f"{folder} is damaged or cannot be read ({reason(error)}): delete that folder and run again"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the progress bars and the remarks of TFDS."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    logger = logging.getLogger("absl")
    level, has_bars = logger.level, getattr(tqdm_utils, "_active", True)
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        tfds.display_progress_bar(has_bars)
