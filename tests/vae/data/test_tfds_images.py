import errno
import functools
import http.server
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info
from tensorflow_datasets.core.registered import skip_registration
from tensorflow_datasets.core.utils import tqdm_utils
from tensorflow_datasets.image_classification.mnist import KMNIST, MNIST

from idx_files import NAMES, small_arrays, write_idx_folder
from vae_jax.vae.data import download
from vae_jax.vae.data.datasets import DatasetMisuse, DatasetUnavailable, load_images
from vae_jax.vae.data.tfds_images import check_feature_classes

FILES = [f"{name}.gz" for name in NAMES]


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class HalfThere(Handler):
    """Sends half of every file, and then nothing for as long as `over` is not set."""

    over = threading.Event()

    def copyfile(self, source, outputfile):
        content = source.read()
        outputfile.write(content[: len(content) // 2])
        outputfile.flush()
        self.over.wait()


@pytest.fixture
def serve(monkeypatch):
    """Serves a folder over loopback HTTP as the home of a dataset of TFDS, with the checksums of its files."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(folder, builder=MNIST, handler=Handler):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(builder, "URL", url)
        monkeypatch.setattr(builder, "url_infos", {url + name: compute_url_info(folder / name) for name in FILES})
        servers.append(server)
        return server

    yield start
    HalfThere.over.set()
    for server in servers:
        server.shutdown()
        server.server_close()
    HalfThere.over.clear()


@pytest.fixture
def small(tmp_path):
    return write_idx_folder(tmp_path / "small", small_arrays())


@pytest.fixture
def offline(serve, small):
    """The files of a dataset whose server is gone."""
    stop(serve(small))
    return small


@pytest.fixture
def prepared(tmp_path, serve, small):
    """A folder with a prepared dataset whose server is gone."""
    server = serve(small)
    load_images("mnist", data_dir=tmp_path / "data")
    stop(server)
    return tmp_path / "data"


def stop(server):
    server.shutdown()
    server.server_close()


def in_order(images, labels):
    """Examples in an order of their own: TFDS shuffles them."""
    return sorted(zip([image.tobytes() for image in images], labels.tolist(), strict=True))


def assert_holds(data, arrays):
    train = [np.concatenate(both) for both in zip(data.train, data.validation, strict=True)]
    assert in_order(*train) == in_order(*arrays[:2])
    assert in_order(*data.test) == in_order(*arrays[2:])


def refusal(exception, **arguments):
    """The message, in one line, that `load_images` fails with."""
    with pytest.raises(exception) as refused:
        load_images(**arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def files_in(folder):
    return {file.name for file in folder.rglob("*") if file.is_file()}


def test_what_is_downloaded_and_prepared_is_what_tfds_reads(tmp_path, serve, small, capfd):
    serve(small)
    reports = []
    data = load_images("mnist", data_dir=tmp_path / "data", on_progress=lambda *report: reports.append(report))
    assert (data.name, data.source, data.shape, data.num_classes) == ("mnist", "TFDS mnist/3.0.1", (28, 28), 10)
    assert [len(split.images) for split in (data.train, data.validation, data.test)] == [55, 5, 20]
    assert_holds(data, small_arrays())
    assert capfd.readouterr() == ("", "")
    assert list(dict(reports)) == ["downloading mnist", "preparing mnist", "reading mnist"]
    shares = [share for description, share in reports if description == "downloading mnist"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    builder = tfds.builder("mnist", data_dir=tmp_path / "data")
    assert type(builder) is MNIST
    assert len(builder.as_data_source(split="train")) == 60


@pytest.mark.slow
def test_real_mnist_through_tfds(tmp_path, serve, mnist_folder):
    serve(mnist_folder)
    data, files = load_images("mnist", data_dir=tmp_path), load_images(str(mnist_folder))
    assert len(data.train.images) == 55_000
    assert_holds(
        data, [*(np.concatenate(both) for both in zip(files.train, files.validation, strict=True)), *files.test]
    )


def test_a_prepared_dataset_needs_no_network(prepared):
    assert_holds(load_images("mnist", data_dir=prepared), small_arrays())


def test_the_default_folder_is_that_of_tfds(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert_holds(load_images("mnist"), small_arrays())


@pytest.fixture
def by_hand(tmp_path):
    """Where files that were fetched by hand go."""
    folder = tmp_path / "data" / "downloads" / "manual"
    folder.parent.mkdir(parents=True)
    return folder


def test_files_fetched_by_hand_need_no_network(tmp_path, offline, by_hand):
    offline.rename(by_hand)
    assert_holds(load_images("mnist", data_dir=tmp_path / "data"), small_arrays())


def test_a_wrong_file_fetched_by_hand_is_refused(tmp_path, offline, by_hand):
    offline.rename(by_hand)
    write_idx_folder(by_hand, small_arrays(num_train=36))
    message = refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")
    assert message.startswith(f"mnist could not be downloaded from {MNIST.URL}{FILES[0]}: ")
    assert f"into {by_hand} (the {FILES[0]} there is another file, by its SHA-256), or " in message


def test_files_of_another_dataset_fetched_by_hand_are_in_nobodys_way(tmp_path, serve, small, by_hand):
    write_idx_folder(by_hand, small_arrays(num_train=36))
    serve(small, KMNIST)
    data = load_images("kmnist", data_dir=tmp_path / "data")
    assert data.source == "TFDS kmnist/3.0.1"
    assert_holds(data, small_arrays())
    assert files_in(by_hand) == set(FILES)


def test_without_a_network_one_line_says_what_to_do_and_soon(tmp_path, offline):
    start = time.perf_counter()
    message = refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")
    assert time.perf_counter() - start < 5
    assert message == (
        f"mnist could not be downloaded from {MNIST.URL}{FILES[0]}: Connection refused; put {', '.join(FILES)} into "
        f"{tmp_path / 'data' / 'downloads' / 'manual'}, or take digits or a folder of IDX files"
    )


def test_a_server_that_is_silent_is_not_waited_for(tmp_path, serve, small, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    serve(small, handler=HalfThere)
    assert ": no answer within 0.2 s; put " in refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")


def test_a_name_server_that_is_silent_is_not_waited_for(tmp_path, offline, monkeypatch):
    asked, over = threading.Event(), threading.Event()

    def find(*args, **kwargs):
        asked.set()
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", find)
    assert ": no answer within 0.2 s; put " in refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")
    assert asked.is_set()
    over.set()


def test_a_file_that_is_not_there_is_said(tmp_path, serve, small):
    serve(small)
    (small / FILES[3]).unlink()
    message = refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")
    assert f"{FILES[3]}: the server answered 404 (File not found); put " in message
    # What came whole is kept for the next time.
    assert files_in(tmp_path / "data") == set(FILES[:3])


@pytest.mark.parametrize("change", ["another", "longer", "shorter"])
def test_checksums_are_enforced(tmp_path, serve, small, change):
    serve(small)
    right = (small / FILES[2]).read_bytes()
    wrong = {"another": right[:50] + b"!" + right[51:], "longer": right + b"!", "shorter": right[:-1]}[change]
    (small / FILES[2]).write_bytes(wrong)
    message = refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")
    assert f"{FILES[2]}: what came is damaged or another file, with SHA-256 " in message
    assert compute_url_info(small / FILES[2]).checksum in message
    assert files_in(tmp_path / "data") == {FILES[0], FILES[1]}
    (small / FILES[2]).write_bytes(right)
    assert_holds(load_images("mnist", data_dir=tmp_path / "data"), small_arrays())


def test_a_file_that_was_damaged_since_is_fetched_again(tmp_path, serve, small):
    serve(small)
    kept = tmp_path / "data" / "downloads" / "mnist"
    kept.mkdir(parents=True)
    (kept / FILES[0]).write_bytes(b"damaged")
    assert_holds(load_images("mnist", data_dir=tmp_path / "data"), small_arrays())


DOWNLOAD = """
import sys
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.image_classification.mnist import MNIST
from vae_jax.vae.data.datasets import load_images
url, folder, *files = sys.argv[1:]
MNIST.URL, MNIST.url_infos = url, {url + name: UrlInfo(10**6, "0", name) for name in files}
load_images("mnist", data_dir=folder, on_progress=lambda *report: print(report, flush=True))
"""


def test_a_download_that_is_killed_leaves_nothing_and_can_be_repeated(tmp_path, serve, small):
    # More than one block must come before the rest does not.
    serve(write_idx_folder(tmp_path / "larger", small_arrays(num_train=200)), handler=HalfThere)
    command = [sys.executable, "-c", DOWNLOAD, MNIST.URL, str(tmp_path / "data"), *FILES]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert b"downloading mnist" in process.stdout.readline()
        process.kill()
        assert not files_in(tmp_path / "data")
    serve(small)
    assert_holds(load_images("mnist", data_dir=tmp_path / "data"), small_arrays())


def test_a_preparation_that_is_interrupted_leaves_nothing_and_can_be_repeated(tmp_path, serve, small):
    def interrupt(description, share):
        if description == "preparing mnist":
            raise KeyboardInterrupt

    serve(small)
    with pytest.raises(KeyboardInterrupt):
        load_images("mnist", data_dir=tmp_path / "data", on_progress=interrupt)
    assert files_in(tmp_path / "data") == set(FILES)
    assert_holds(load_images("mnist", data_dir=tmp_path / "data"), small_arrays())


def test_two_may_prepare_the_same(tmp_path, serve, small):
    def overtake(description, share):
        if description == "preparing mnist":
            load_images("mnist", data_dir=tmp_path / "data")

    serve(small)
    assert_holds(load_images("mnist", data_dir=tmp_path / "data", on_progress=overtake), small_arrays())


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path, serve, small, monkeypatch):
    serve(small)
    (tmp_path / "file").write_text("")
    message = refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "file")
    folder = tmp_path / "file" / "downloads" / "mnist"
    assert message == f"{FILES[0]} could not be kept in {folder}: Not a directory; make room or name another data_dir"

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    message = refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data")
    assert ": No space left on device; make room " in message
    assert not files_in(tmp_path / "data")


def test_a_preparation_that_fails_is_said(tmp_path, serve, small, monkeypatch):
    def full(self, *args, **kwargs):
        raise RuntimeError("write() failed:\n No space left on device")

    serve(small)
    monkeypatch.setattr(MNIST, "download_and_prepare", full)
    assert refusal(DatasetUnavailable, data="mnist", data_dir=tmp_path / "data") == (
        f"mnist could not be prepared in {tmp_path / 'data'} (write() failed: No space left on device): make room "
        "there or name another data_dir"
    )


@pytest.mark.parametrize("file", ["mnist-train.array_record-00000-of-00001", "dataset_info.json"])
@pytest.mark.parametrize("length", [0, 300])
def test_a_prepared_dataset_that_is_damaged_is_said(prepared, file, length):
    file = prepared / "mnist" / "3.0.1" / file
    file.write_bytes(file.read_bytes()[:length])
    message = refusal(DatasetUnavailable, data="mnist", data_dir=prepared)
    assert message.startswith(f"{prepared / 'mnist'}")
    assert " is damaged or cannot be read (" in message
    assert message.endswith("): delete that folder and run again")


def test_a_flipped_bit_in_a_prepared_dataset_is_found(prepared):
    file = prepared / "mnist" / "3.0.1" / "mnist-test.array_record-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[2_000] ^= 1
    file.write_bytes(content)
    assert "hash mismatch" in refusal(DatasetUnavailable, data="mnist", data_dir=prepared)


@pytest.mark.parametrize(
    "change",
    [
        lambda features, name: features.update(pythonClassName=name),
        lambda features, name: features["featuresDict"]["features"]["image"].update(pythonClassName=name),
        lambda features, name: features.update(python_class_name=name),
        lambda features, name: features.update(type=name, content={}),
        lambda features, name: features.update(nested=[{"type": name, "content": "{}"}]),
    ],
)
def test_a_dataset_cannot_name_code_that_is_run(prepared, tmp_path, monkeypatch, change):
    (tmp_path / "elsewhere.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = prepared / "mnist" / "3.0.1" / "features.json"
    content = json.loads(file.read_text())
    change(content, "elsewhere.Feature")
    file.write_text(json.dumps(content))
    message = refusal(DatasetMisuse, data="mnist", data_dir=prepared)
    assert message == f"{file} must name feature classes of TFDS alone, got 'elsewhere.Feature': do not read it"
    assert "elsewhere" not in sys.modules


@pytest.mark.parametrize("name", ["tensorflow_datasets.core.features.os.system", "tensorflow_datasets.os.system", 3])
def test_a_class_that_is_no_feature_is_refused(tmp_path, name):
    (tmp_path / "features.json").write_text(json.dumps({"pythonClassName": name}))
    with pytest.raises(DatasetMisuse, match=r"features\.json must name feature classes of TFDS alone"):
        check_feature_classes(tmp_path)


def test_a_format_that_only_tensorflow_reads_is_refused(prepared):
    info = prepared / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    message = refusal(DatasetMisuse, data="mnist", data_dir=prepared)
    assert message.startswith(f"mnist/3.0.1 in {prepared} must be prepared as array_record, got ")
    assert message.endswith(", which only TensorFlow reads: name another data_dir")


def prepare_dataset(name, data_dir, features, splits):
    """Prepares a dataset that TFDS knows from its files alone."""

    def generate(self, dl_manager):
        return {split: list(enumerate(examples)) for split, examples in splits.items()}

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    parts = {"VERSION": tfds.core.Version("1.0.0"), "_info": info, "_split_generators": generate, "name": name}
    with skip_registration():
        builder = type(name, (tfds.core.GeneratorBasedBuilder,), parts | {"_generate_examples": generate})
    builder(data_dir=data_dir).download_and_prepare(file_format="array_record")


def coloured(size):
    images = np.random.default_rng(size).integers(0, 256, (size, 5, 4, 3), dtype=np.uint8)
    return [{"image": Image.fromarray(image)} for image in images]


def test_any_prepared_dataset_of_images_loads(tmp_path):
    splits = {"train": coloured(24), "validation": coloured(7)}
    prepare_dataset("flags", tmp_path, {"image": tfds.features.Image(shape=(5, 4, 3))}, splits)
    for name in ("flags", "flags:1.0.0"):
        data = load_images(name, data_dir=tmp_path)
        assert data.source == "TFDS flags/1.0.0, its last sixth as test"
        assert (data.shape, data.num_classes, data.train.labels) == ((5, 4, 3), None, None)
        assert [len(split.images) for split in (data.train, data.validation, data.test)] == [20, 7, 4]
    assert len(load_images("flags", data_dir=tmp_path, num_validation=3).train.images) == 17


@pytest.mark.parametrize(
    ("feature", "value", "message"),
    [
        ("sound", 1, r"must have images of uint8 and one size under the name image, got ['sound']: name another"),
        ("image", Image.new("RGB", (2, 2)), "must have images of uint8 and one size under the name image, got Image("),
    ],
)
def test_prepared_datasets_of_something_else_are_refused(tmp_path, feature, value, message):
    features = {"sound": tfds.features.Scalar(np.int64), "image": tfds.features.Image(shape=(None, None, 3))}
    prepare_dataset("things", tmp_path, {feature: features[feature]}, {"train": [{feature: value}] * 3})
    assert f"things/1.0.0 in {tmp_path} {message}" in refusal(DatasetMisuse, data="things", data_dir=tmp_path)


def test_prepared_datasets_without_training_images_are_refused(tmp_path):
    prepare_dataset("flags", tmp_path, {"image": tfds.features.Image(shape=(5, 4, 3))}, {"gallery": coloured(5)})
    message = f"flags/1.0.0 in {tmp_path} must have a split train, got gallery: name another dataset"
    assert refusal(DatasetMisuse, data="flags", data_dir=tmp_path) == message


@pytest.mark.parametrize("name", ["downloads", "cifar10", "mnist/nothing"])
def test_datasets_that_are_not_prepared_are_not_downloaded(prepared, name):
    (prepared / "cifar10").mkdir()
    assert refusal(DatasetMisuse, data=name, data_dir=prepared).startswith(
        "data must be mnist, fashion_mnist, kmnist, "
    )


def test_tfds_is_left_as_it_was(prepared):
    logger = logging.getLogger("absl")
    level = logger.level
    for has_bars in (True, False):
        tfds.display_progress_bar(has_bars)
        load_images("mnist", data_dir=prepared)
        assert tqdm_utils._active is has_bars
    tfds.enable_progress_bar()
    assert logger.level == level
