"""Which images are in train and in test: of the same content, or mirrored."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from maebench.data.content import known
from maebench.data.images import Images, InMemory
from maebench.data.on_disk import BLOCK, OnDisk
from maebench.data.rows import Rows
from maebench.data.split_info import Remark
from maebench.encoders.inputs import examples_of


@dataclass(frozen=True)
class Copies:
    """Which images of train test holds too.

    Args:
        train: their positions in train, int64, ascending.
        test: their positions in test, int64, ascending.
        mirrored: how many of test's are there mirrored, and not as they are.
        relabelled: how many of test's have another label in train.
        num_test: the number of test images.
        by_files: whether files were compared, which tell of no copy that was saved again.
        examples: what they are called.
    """

    train: Tensor
    test: Tensor
    mirrored: int
    relabelled: int
    num_test: int
    by_files: bool = False
    examples: str = "images"

    def remark(self) -> Remark | None:
        """What is said of them; None where there are none."""
        count = len(self.test)
        if not count:
            return None
        more = [f"{self.mirrored:,} of them mirrored"] if self.mirrored else []
        more += [f"{self.relabelled:,} with another label"] if self.relabelled else []
        some = f" ({', '.join(more)})" if more else ""
        share = f"{count:,} of {self.num_test:,} test {self.examples}, {count / self.num_test:.1%},"
        return Remark(
            "in train and test",
            count,
            f"{share} are in train too{some}" + ", by the bytes of files" * self.by_files,
            "-o data.on_duplicates=drop leaves them out of train",
        )


def find_copies(train: Images, test: Images, mirrored: bool) -> Copies | None:
    """Images that are in both splits; None where neither pixels nor files can be compared.

    Args:
        train: what is learnt from.
        test: what is reported on.
        mirrored: whether a mirrored image is a copy, as it is where crops are flipped. Splits that
            are read from disk are compared by their files' bytes, which tell none.
    """
    if isinstance(train, InMemory) and isinstance(test, InMemory):
        if train.pixels.shape[1:] != test.pixels.shape[1:]:
            return None
        return _of_pixels(train, test, mirrored)
    if isinstance(train, Rows) and isinstance(test, Rows):
        return _of_rows(train, test)
    digests = _digests(train, test)
    if digests is None:
        return None
    return replace(_matched(train, test, *digests, {}), by_files=True)


def _of_pixels(train: InMemory, test: InMemory, mirrored: bool) -> Copies:
    """By the bytes of all pixels, of those images whose sums agree."""
    sums = [_sums(images.pixels) for images in (train, test)]
    shared = set(sums[0]) & set(sums[1])
    keys = [
        {i: images.pixels[i].numpy().tobytes() for i, s in enumerate(found) if s in shared}
        for images, found in zip((train, test), sums, strict=True)
    ]
    turned = {i: test.pixels[i].flip(2).numpy().tobytes() for i in keys[1]} if mirrored else {}
    return _matched(train, test, keys[0], keys[1], turned)


def _of_rows(train: Rows, test: Rows) -> Copies | None:
    """By all their numbers."""
    if train.info.inputs.shape != test.info.inputs.shape:
        return None
    ours, theirs = (
        {i: row.numpy().tobytes() for i, row in enumerate(rows.values)} for rows in (train, test)
    )
    found = _matched(train, test, ours, theirs, {})
    return replace(found, examples=examples_of(train.info.inputs.kind))


def _sums(pixels: Tensor) -> list[tuple[int, int]]:
    """Two numbers of each image (N, C, H, W), which its mirror image has too."""
    weights = torch.arange(1, pixels.shape[2] + 1)
    found: list[tuple[int, int]] = []
    for part in pixels.split(BLOCK):
        rows_BH = part.sum((1, 3), dtype=torch.int64)
        both = rows_BH.sum(1).tolist(), (rows_BH * weights).sum(1).tolist()
        found += zip(*both, strict=True)
    return found


def _digests(train: Images, test: Images) -> tuple[dict[int, str], dict[int, str]] | None:
    """What stands for the bytes of each file of two splits, of which one at least is on disk."""
    on_disk = [images for images in (train, test) if isinstance(images, OnDisk)]
    if not on_disk:
        return None
    whole = all(file.whole for images in on_disk for file in images.files)
    found = []
    for images in (train, test):
        if isinstance(images, OnDisk) and all(file.whole == whole for file in images.files):
            files = list(images.files)
        elif paths := _paths(images):
            files = known(paths, Path(os.path.commonpath(paths)), whole)
        else:
            return None
        found.append({i: file.digest for i, file in enumerate(files)})
    return found[0], found[1]


def _paths(images: Images) -> list[Path]:
    if isinstance(images, OnDisk):
        return [file.path for file in images.files]
    return list(images.paths) if isinstance(images, InMemory) else []


def _matched(
    train: Images,
    test: Images,
    ours: Mapping[int, Hashable],
    theirs: Mapping[int, Hashable],
    turned: Mapping[int, Hashable],
) -> Copies:
    """The images whose keys are equal; `turned` has those of test's mirror images."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in ours.items():
        places[key].append(i)
    same = {i: places[key] for i, key in theirs.items() if key in places}
    mirror = {i: places[key] for i, key in turned.items() if key in places}
    labels = train.info.labels, test.info.labels
    relabelled = 0
    both = {i: [*same.get(i, []), *mirror.get(i, [])] for i in sorted({*same, *mirror})}
    if labels[0] is not None and labels[1] is not None:
        relabelled = sum(
            any(int(labels[0][j]) != int(labels[1][i]) for j in found) for i, found in both.items()
        )
    return Copies(
        train=_positions(j for found in both.values() for j in found),
        test=_positions(both),
        mirrored=len(mirror.keys() - same.keys()),
        relabelled=relabelled,
        num_test=len(test),
    )


def _positions(found: Iterable[int]) -> Tensor:
    return torch.tensor(sorted(set(found)), dtype=torch.int64)
