"""The table of published data sets, and IDX files: as torchvision reads them, or refused."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from maebench.data import memory
from maebench.data.torchvision_sources import PRESETS, SOURCES, read_idx
from maebench.errors import DataError, RunError

# The table.


def test_torchvision_has_the_class_of_each_source():
    for source in SOURCES.values():
        assert issubclass(getattr(datasets, source.cls), torch.utils.data.Dataset)


def test_presets_follow_size_and_count():
    wanted = {
        "mnist": ((28, 28), "vit-nano"),
        "emnist-letters": ((28, 28), "vit-micro"),
        "cifar10": ((32, 32), "vit-nano"),
        "stl10": ((96, 96), "vit-tiny"),
        "imagenette": ((160, 160), "vit-small"),
        "oxford-pets": ((224, 224), "vit-small"),
        "imagenet": ((224, 224), "vit-base"),
    }
    for name, (size, encoder) in wanted.items():
        assert (PRESETS[name]["image_size"], PRESETS[name]["encoder"]) == (size, encoder)


# IDX files.


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


@pytest.mark.parametrize("shape", [(5,), (4, 3), (7, 28, 27), (300, 2, 2)])
def test_the_numbers_are_torchvisions_plain_or_gzipped(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    plain, packed = tmp_path / "file", tmp_path / "file.gz"
    plain.write_bytes(idx(array))
    packed.write_bytes(gzip.compress(idx(array)))
    theirs = read_sn3_pascalvincent_tensor(str(plain)).numpy()
    for path in (plain, packed):
        ours = read_idx(path)
        assert ours.dtype == np.uint8 and ours.flags.writeable
        assert np.array_equal(ours, theirs) and np.array_equal(ours, array)


def test_packing_is_seen_by_content_and_not_by_name(tmp_path):
    array = np.arange(6, dtype=np.uint8)
    (tmp_path / "a.gz").write_bytes(idx(array))
    (tmp_path / "b").write_bytes(gzip.compress(idx(array)))
    assert np.array_equal(read_idx(tmp_path / "a.gz"), array)
    assert np.array_equal(read_idx(tmp_path / "b"), array)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts with ''"),
        (b"\0\0", "starts with '00 00'"),
        (b"\x89PNG" + GOOD, "starts with '89 50 4e 47'"),
        (b"\0\0\x0d\3" + GOOD[4:], "no IDX file of bytes"),
        (b"\0\0\x08\0", "no IDX file of bytes"),
        (b"\0\0\x08\x09" + GOOD[4:], "no IDX file of bytes"),
        (GOOD[:7], "has 7 bytes"),
        (GOOD[:-1], "has 39 bytes, its header wants 16 + 2 x 3 x 4"),
        (GOOD + b"!", "has 41 bytes"),
        (gzip.compress(GOOD, mtime=0)[:-9], "end-of-stream"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "no IDX file of bytes"),
        (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 20, "cannot read"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "CRC"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, content, reason):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    message = str(caught.value)
    assert str(path) in message and reason in message and "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"No such file.*gone"):
        read_idx(tmp_path / "gone")


def bomb(*shape):
    """The header of so many numbers, and no number."""
    return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bomb(2**32 - 1, 2**16, 2**16), "has 16 bytes, its header wants 16 + 4294967295 x 65536"),
        (gzip.compress(bomb(2**31, 28, 28), mtime=0), "which cannot hold 1,683,627,180,048 packed"),
        (
            gzip.compress(bomb(1, 2, 3) + bytes(2**26), mtime=0),
            "has more bytes, its header wants 16 + 1 x",
        ),
    ],
)
def test_a_header_or_a_file_that_stands_for_far_more_is_refused_unread(tmp_path, content, reason):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        read_idx(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert most < 2**20


def test_numbers_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(GOOD)
    monkeypatch.setattr(memory, "available", lambda: 40)
    with pytest.raises(RunError, match="2 x 3 x 4 numbers take up to .*: take another file"):
        read_idx(tmp_path / "a")
