import gzip
import hashlib
import os

import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from idx_files import NAMES, idx_bytes, small_arrays, write_idx_folder
from vae_jax.vae.data.datasets import DatasetMisuse, DatasetUnavailable, load_images


@pytest.fixture
def folder(tmp_path):
    return write_idx_folder(tmp_path / "idx", small_arrays(side=5))


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def images_of(data):
    return np.concatenate([split.images for split in (data.train, data.validation, data.test)])


def labels_of(data):
    return np.concatenate([split.labels for split in (data.train, data.validation, data.test)])


def test_mnist_is_the_official_one(mnist_folder):
    data = load_images(str(mnist_folder))
    assert [len(split.images) for split in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert (data.shape, data.num_classes) == ((28, 28), 10)
    assert data.source == f"IDX files in {mnist_folder}"
    assert data.train.images.max() == 255
    header = idx_bytes(np.empty((60_000, 28, 28), np.uint8))[:16]
    official = header + data.train.images.tobytes() + data.validation.images.tobytes()
    assert hashlib.md5(official).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_under_all_their_names(tmp_path, dot, zipped):
    arrays = small_arrays(side=5)
    data = load_images(str(write_idx_folder(tmp_path / "idx", arrays, dot=dot, zipped=zipped)))
    np.testing.assert_array_equal(np.concatenate([data.train.images, data.validation.images]), arrays[0])
    np.testing.assert_array_equal(np.concatenate([data.train.labels, data.validation.labels]), arrays[1])
    np.testing.assert_array_equal(data.test.images, arrays[2])
    np.testing.assert_array_equal(data.test.labels, arrays[3])


def test_idx_files_without_labels(folder):
    for file in folder.glob("*labels*"):
        file.unlink()
    data = load_images(str(folder))
    assert data.train.labels is data.validation.labels is data.test.labels is data.num_classes is None


@pytest.mark.parametrize(("num_validation", "expected"), [(None, 5), (0, 0), (7, 7), (59, 59)])
def test_validation_is_the_end_of_the_training_images(folder, num_validation, expected):
    data = load_images(str(folder), num_validation=num_validation)
    train = small_arrays(side=5)[0]
    np.testing.assert_array_equal(data.train.images, train[: 60 - expected])
    np.testing.assert_array_equal(data.validation.images, train[60 - expected :])
    assert data.validation.images.shape == (expected, 5, 5)


@pytest.mark.parametrize("num_validation", [-1, 60, 1_000])
def test_validation_must_leave_training_images(folder, num_validation):
    with pytest.raises(DatasetMisuse, match=f"num_validation must be .*, got {num_validation}: "):
        load_images(str(folder), num_validation=num_validation)


def test_a_source_with_its_own_validation(tmp_path):
    images = np.arange(10 * 3 * 2, dtype=np.uint8).reshape(10, 3, 2)
    file = saved(tmp_path / "a.npz", train_images=images[:6], validation_images=images[6:8], test_images=images[8:])
    np.testing.assert_array_equal(load_images(file).validation.images, images[6:8])
    np.testing.assert_array_equal(load_images(file, num_validation=2).validation.images, images[4:6])
    assert len(load_images(file, num_validation=0).validation.images) == 0


def test_the_checksum_is_of_everything(folder):
    data = load_images(str(folder))
    assert data.checksum == load_images(str(folder)).checksum
    assert data.checksum != load_images(str(folder), num_validation=3).checksum
    labels = small_arrays(side=5)[3]
    labels[-1] += 1
    (folder / f"{NAMES[3]}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    assert data.checksum != load_images(str(folder)).checksum


def test_digits():
    data = load_images("digits")
    assert (data.shape, data.num_classes) == ((8, 8), 10)
    assert data.source == "scikit-learn digits, its last sixth as test"
    assert [len(split.images) for split in (data.train, data.validation, data.test)] == [1_374, 124, 299]
    values, targets = sklearn_digits(return_X_y=True)
    order = sorted(range(1_797), key=lambda number: hashlib.sha256(str(number).encode()).hexdigest())
    np.testing.assert_array_equal(labels_of(data), targets[order])
    images = images_of(data).reshape(-1, 64)
    np.testing.assert_array_equal(np.rint(images / 255 * 16), values[order])
    assert np.abs(images - values[order] * 255 / 16).max() <= 0.5
    assert images.min() == 0
    assert images.max() == 255
    # All writers are everywhere: each tenth of the file, which is sorted by writer, has its share in the test split.
    tenths = np.bincount(np.array(order[-299:]) * 10 // 1_797, minlength=10)
    assert tenths.min() > 15
    # The splits share nothing, up to digits that are there twice.
    assert len(np.unique(images, axis=0)) == len(np.unique(values, axis=0))


def test_digits_need_no_network_and_no_data_dir(tmp_path):
    load_images("digits", data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_npz_with_splits(tmp_path, names):
    arrays = small_arrays(side=4)
    data = load_images(saved(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True))))
    np.testing.assert_array_equal(data.test.images, arrays[2])
    np.testing.assert_array_equal(data.test.labels, arrays[3])
    assert data.source == f"NumPy file {tmp_path / 'a.npz'}"
    assert len(data.train.images) == 55
    assert data.num_classes == 10


def test_lone_arrays_give_their_last_sixth_as_test(tmp_path):
    images, labels, *_ = small_arrays(side=4)
    np.save(tmp_path / "a.npy", images)
    for file in (saved(tmp_path / "a.npz", images=images, labels=labels[:, None]), str(tmp_path / "a.npy")):
        data = load_images(file)
        assert data.source == f"NumPy file {file}, its last sixth as test"
        np.testing.assert_array_equal(images_of(data), images)
        assert [len(split.images) for split in (data.train, data.validation, data.test)] == [46, 4, 10]
    assert data.num_classes is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((12, 4, 3), (4, 3)),
        ((12, 4, 3, 1), (4, 3)),
        ((12, 4, 3, 3), (4, 3, 3)),
        ((12, 16), (4, 4)),
        ((12, 15), (15,)),
    ],
)
def test_shapes_of_arrays(tmp_path, shape, expected):
    images = np.arange(np.prod(shape)).astype(np.uint8).reshape(shape)
    np.save(tmp_path / "a.npy", images)
    data = load_images(str(tmp_path / "a.npy"))
    assert data.shape == expected
    assert images_of(data).tobytes() == images.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_become_uint8_exactly(tmp_path, dtype):
    values = np.arange(256, dtype=np.uint8).repeat(6 * 20).reshape(20, 256, 6, order="F")
    file = saved(tmp_path / "a.npz", images=values.astype(dtype) / 255)
    np.testing.assert_array_equal(images_of(load_images(file)), values)


def test_other_types_that_become_uint8(tmp_path):
    values = np.arange(5_000 * 2 * 2).reshape(5_000, 2, 2) % 256
    for images, expected in (
        (values, values),
        (values > 9, (values > 9) * 255),
        ((values > 9) * 1.0, (values > 9) * 255),
    ):
        np.testing.assert_array_equal(images_of(load_images(saved(tmp_path / "a.npz", images=images))), expected)


IMAGES = np.full((6, 2, 2), 7, np.uint8)

MISUSES = {
    "no images": ({"pictures": IMAGES}, "an array named train_images, x_train or images, got pictures: rename"),
    "only labels": ({"labels": IMAGES}, "an array named train_images, x_train or images, got labels: rename"),
    "empty": ({"images": IMAGES[:0]}, r"training images, got an array of shape \(0, ...\): name"),
    "objects": ({"images": IMAGES.astype(object)}, "arrays of numbers, got Python objects, which are never loaded: "),
    "strings": ({"images": IMAGES.astype(str)}, "images of .* must be of numbers, got <U3: save"),
    "integers above 255": ({"images": IMAGES * np.int32(40)}, "integers from 0 to 255, got 280 to 280: "),
    "negative integers": ({"images": IMAGES * np.int32(-1)}, "integers from 0 to 255, got -7 to -7: "),
    "black and white as 0 and 1": ({"images": np.eye(6, dtype=np.uint8)}, "got 0 to 1: save images .* as bool"),
    "floats up to 255": ({"images": IMAGES * 1.0}, "floats k/255 .*, got 7 to 7: round"),
    "floats between": ({"images": IMAGES / 700}, "floats k/255 .*, got 0.01 to 0.01: round"),
    "NaN": ({"images": IMAGES * np.nan}, "floats k/255 .*, got nan to nan: round"),
    "infinity": ({"images": IMAGES * -np.inf}, "floats k/255 .*, got -inf to -inf: round"),
    "a vector": ({"images": IMAGES[0, 0]}, r"shape \[N, H, W\], .*, got \[2\]: put"),
    "two channels": ({"images": IMAGES[..., None].repeat(2, -1)}, r"shape .*, got \[6, 2, 2, 2\]: put"),
    "lengths": ({"images": IMAGES, "labels": np.arange(5)}, "a label an image, got 5 labels and 6 images in train: "),
    "two shapes": (
        {"x_train": IMAGES, "x_test": IMAGES[:, :1]},
        r"images of one shape, got \(2, 2\) in train and \(1, 2\) in test: crop",
    ),
    "labels of floats": ({"images": IMAGES, "labels": np.ones(6)}, r"integers \[N\], got float64 \[6\]: number"),
    "one-hot labels": (
        {"images": IMAGES, "labels": np.eye(6, dtype=int)},
        r"integers \[N\], got int64 \[6, 6\]: number",
    ),
    "negative labels": ({"images": IMAGES, "labels": np.arange(-1, 5)}, "classes from 0, got -1 to 4: number"),
}


@pytest.mark.parametrize("case", MISUSES)
def test_misused_arrays_are_refused(tmp_path, case):
    arrays, message = MISUSES[case]
    with pytest.raises(DatasetMisuse, match=message) as refusal:
        load_images(saved(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("name", ["mnits", "./mnist", "nowhere/data.npz", "~/nowhere/idx", ""])
def test_what_does_not_exist_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    expected = f"data must be mnist, fashion_mnist, kmnist, digits, a dataset prepared in {tmp_path}, or the path of "
    with pytest.raises(DatasetMisuse, match=expected) as refusal:
        load_images(name or "data.csv", data_dir=tmp_path)
    assert ", which does not exist: name one" in str(refusal.value)


def test_files_of_other_formats_are_refused(tmp_path):
    for name, message in (
        ("a.npz", "must be an .npz file, got another format: save"),
        ("a.npy", "must be an .npy file, got another format: save"),
        ("a.csv", r"got '.*a.csv': name one of them"),
    ):
        (tmp_path / name).write_text("1,2,3\n")
        with pytest.raises(DatasetMisuse, match=message):
            load_images(str(tmp_path / name))


def test_a_path_can_have_the_name_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_idx_folder(tmp_path / "digits", small_arrays(side=5))
    assert load_images("digits").shape == (8, 8)
    assert load_images("./digits").shape == (5, 5)


def test_a_pickle_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    np.save(tmp_path / "a.npy", np.array([Trap()]), allow_pickle=True)
    with pytest.raises(DatasetMisuse, match=r"Python objects, which are never loaded: save plain arrays"):
        load_images(str(tmp_path / "a.npy"))
    assert not (tmp_path / "sprung").exists()


def flipped(content):
    return content[:100] + bytes([content[100] ^ 16]) + content[101:]


DAMAGES = {"truncated": lambda content: content[:-9], "flipped": flipped, "empty": lambda content: content[:9]}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["idx", "a.npz", "a.npy"])
def test_damaged_files_are_refused(tmp_path, folder, name, damage):
    images = small_arrays(side=5)[0]
    np.savez_compressed(tmp_path / "a.npz", images=images)
    np.save(tmp_path / "a.npy", images)
    file = folder / f"{NAMES[0]}.gz" if name == "idx" else tmp_path / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(DatasetUnavailable, match=rf"{file} is damaged \(.+\): fetch it again") as refusal:
        load_images(str(tmp_path / name))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "ends before the"),
        (lambda content: content[:9], "ends within its header"),
        (lambda content: content + b"0", "goes on after the"),
        (lambda content: content[:4] + b"\xff" + content[5:], "too short for the"),
        (lambda content: gzip.compress(content[:-1]), "ends before the"),
        (lambda content: gzip.compress(content + b"0"), "goes on after the"),
        (lambda content: gzip.compress(content) + b"x", "Not a gzipped file"),
        (lambda content: gzip.compress(content)[:-8] + bytes(8), "CRC check failed"),
    ],
)
def test_the_length_and_the_crc_of_idx_files_are_checked(folder, damage, message):
    file = folder / f"{NAMES[0]}.gz"
    file.write_bytes(damage(gzip.decompress(file.read_bytes())))
    with pytest.raises(DatasetUnavailable, match=rf"{file} is damaged \(.*{message}.*\): fetch it again"):
        load_images(str(folder))


def test_wrong_idx_files_are_refused(folder):
    (folder / f"{NAMES[1]}.gz").write_bytes((folder / f"{NAMES[0]}.gz").read_bytes())
    with pytest.raises(DatasetMisuse, match=f"{NAMES[1]}.gz must .* starts with 00 00 08 01, got 00 00 08 03: fetch"):
        load_images(str(folder))
    (folder / f"{NAMES[1]}.gz").write_bytes(b"")
    with pytest.raises(DatasetMisuse, match=r"which starts with 00 00 08 01, got nothing: "):
        load_images(str(folder))
    (folder / f"{NAMES[0]}.gz").unlink()
    with pytest.raises(DatasetMisuse, match=rf"{folder} must hold IDX files .*, got no {NAMES[0]}\[.gz\] in it: name"):
        load_images(str(folder))
