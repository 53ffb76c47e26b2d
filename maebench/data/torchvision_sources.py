"""Where published data sets come from, and what the IDX files of MNIST's relatives hold."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from maebench.data.dataset import GENTLE, preset_for
from maebench.data.memory import check_fits
from maebench.errors import DataError


@dataclass(frozen=True)
class Part:
    """One split.

    Args:
        options: what torchvision's class is called with.
        files: what must lie below --data-dir; "a|b" where either will do.
    """

    options: Mapping[str, Any]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Args:
        cls: the class in torchvision.datasets.
        holds: the attributes of its object that hold images (or their paths) and labels, or the
            one that holds pairs of them.
        size: rows and columns; of photographs, those that the papers train at.
        num_train: number of training images.
        train: the split to learn from.
        test: the split to report on.
        gentle: whether images are characters, which a strong crop or a mirror makes others.
        labelled: whether a whole image has a label.
    """

    cls: str
    holds: tuple[str, ...]
    size: tuple[int, int]
    num_train: int
    train: Part
    test: Part
    gentle: bool = False
    labelled: bool = True

    def preset(self) -> dict[str, Any]:
        """Settings that suit it."""
        found = preset_for(self.size, self.num_train)
        return {**found, "augment": GENTLE} if self.gentle else found


def _idx(cls: str, num_train: int, train: str, test: str, **options: str) -> Source:
    train_part, test_part = (
        Part(
            {**options, "train": name == train},
            tuple(
                f"{name}-{what}|{name}-{what}.gz"
                for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
            ),
        )
        for name in (train, test)
    )
    return Source(cls, (), (28, 28), num_train, train_part, test_part, gentle=True)


def _cifar(cls: str, folder: str, train: tuple[str, ...], test: str, meta: str) -> Source:
    # torchvision checks the files of both splits, whichever is asked for
    files = tuple(f"{folder}/{name}" for name in (*train, test, meta))
    train_part, test_part = (Part({"train": wanted}, files) for wanted in (True, False))
    return Source(cls, ("data", "targets"), (32, 32), 50_000, train_part, test_part)


def _split(train: str, test: str, *files: str) -> tuple[Part, Part]:
    """Two parts that differ in `split`; "{}" in a file's name stands for it."""
    train_part, test_part = (
        Part({"split": name}, tuple(file.format(name) for file in files)) for name in (train, test)
    )
    return train_part, test_part


def _voc(name: str) -> Part:
    """A part of the segmentation task of Pascal VOC 2012."""
    folder = "VOCdevkit/VOC2012"
    files = (f"ImageSets/Segmentation/{name}.txt", "JPEGImages", "SegmentationClass")
    options = {"year": "2012", "image_set": name}
    return Part(options, tuple(f"{folder}/{file}" for file in files))


SOURCES: Mapping[str, Source] = {
    "mnist": _idx("MNIST", 60_000, "train", "t10k"),
    "fashion-mnist": _idx("FashionMNIST", 60_000, "train", "t10k"),
    "kmnist": _idx("KMNIST", 60_000, "train", "t10k"),
    "emnist-letters": _idx(
        "EMNIST", 124_800, "emnist-letters-train", "emnist-letters-test", split="letters"
    ),
    "cifar10": _cifar(
        "CIFAR10",
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        "batches.meta",
    ),
    "cifar100": _cifar("CIFAR100", "cifar-100-python", ("train",), "test", "meta"),
    "svhn": Source(
        "SVHN",
        ("data", "labels"),
        (32, 32),
        73_257,
        *_split("train", "test", "{}_32x32.mat"),
        gentle=True,
    ),
    "stl10": Source(
        "STL10",
        ("data", "labels"),
        (96, 96),
        5_000,
        *_split(
            "train",
            "test",
            *(f"stl10_binary/{name}_X.bin" for name in ("train", "test", "unlabeled")),
            *(f"stl10_binary/{name}_y.bin" for name in ("train", "test")),
        ),
    ),
    "food101": Source(
        "Food101",
        ("_image_files", "_labels"),
        (224, 224),
        75_750,
        *_split("train", "test", "food-101/images", "food-101/meta/{}.json"),
    ),
    "oxford-pets": Source(
        "OxfordIIITPet",
        ("_images", "_labels"),
        (224, 224),
        3_680,
        *_split("trainval", "test", "oxford-iiit-pet/images", "oxford-iiit-pet/annotations/{}.txt"),
    ),
    "voc-segmentation": Source(
        "VOCSegmentation",
        ("images",),
        (224, 224),
        1_464,
        _voc("train"),
        _voc("val"),
        labelled=False,
    ),
    "imagenette": Source(
        "Imagenette", ("_samples",), (160, 160), 9_469, *_split("train", "val", "{}")
    ),
    "imagenet": Source(
        "ImageNet",
        ("samples",),
        (224, 224),
        1_281_167,
        *_split(
            "train",
            "val",
            "meta.bin|ILSVRC2012_devkit_t12.tar.gz",
            "{0}|ILSVRC2012_img_{0}.tar",
        ),
    ),
}
PRESETS: Mapping[str, dict[str, Any]] = {name: s.preset() for name, s in SOURCES.items()}

# IDX, the format of MNIST: a zero, a zero, the kind of number, how many dimensions, their lengths
MAGIC = {b"\0\0\x08" + bytes([n]): n for n in (1, 2, 3)}  # 8: unsigned bytes, in n dimensions

DEFLATED = 1_032  # most bytes that one of a gzip file can stand for (zlib's own figure)


def read_idx(path: Path) -> np.ndarray:
    """The numbers of an IDX file of bytes in their shape, uint8.

    Raises:
        DataError: the file cannot be read, is cut off or is no such file; names it.
    """
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            return _idx_of(gzip.GzipFile(fileobj=plain) if packed else plain, path, packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}. Fetch it again") from error


def _idx_of(file: BufferedIOBase, path: Path, packed: bool) -> np.ndarray:
    """The numbers, of which no more are read than the header states and the file can hold."""
    begins = file.read(4)
    if begins not in MAGIC:
        raise DataError(f"{path} is no IDX file of bytes: it starts with {begins.hex(' ')!r}")
    lengths = 4 * MAGIC[begins]
    shape = struct.unpack(f">{MAGIC[begins]}I", file.read(lengths).ljust(lengths, b"\0"))
    start, count, there = 4 + lengths, math.prod(shape), path.stat().st_size
    wanted = f"{start} + {' x '.join(map(str, shape))}"
    if start + count > there * (DEFLATED if packed else 1):
        held = "" if not packed else f", which cannot hold {start + count:,} packed"
        raise DataError(
            f"{path} has {there} bytes{held}, its header wants {wanted}. Fetch it again"
        )
    check_fits(f"{path}: {' x '.join(map(str, shape))} numbers", 2 * count, "take another file")
    numbers = np.frombuffer(file.read(count), np.uint8)
    if len(numbers) != count or file.read(1):  # unpacked to the end, its checksum is looked at
        unpacked = "more" if len(numbers) == count else start + len(numbers)
        has = unpacked if packed else there
        raise DataError(f"{path} has {has} bytes, its header wants {wanted}. Fetch it again")
    return numbers.reshape(shape).copy()  # torch writes to it
