"""Small datasets in the IDX format."""

import gzip

import numpy as np

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def small_arrays(num_train=60, num_test=20, side=28):
    """Random images and labels of both splits, in the order of `NAMES`."""
    generator = np.random.default_rng(0)
    arrays = []
    for size in (num_train, num_test):
        arrays.append(generator.integers(0, 256, (size, side, side), dtype=np.uint8))
        arrays.append(np.arange(size).astype(np.uint8) % 10)
    return arrays


def write_idx_folder(folder, arrays, *, dot=False, zipped=True):
    folder.mkdir(exist_ok=True)
    for name, array in zip(NAMES, arrays, strict=True):
        name = name.replace("-idx", ".idx") if dot else name
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return folder
