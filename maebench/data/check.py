"""What a careful person looks at in a data set before trusting numbers from it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from maebench.data.dataset import Splits
from maebench.data.decode import FileHeader, read_header
from maebench.data.images import Images, InMemory
from maebench.data.look_alikes import SIDE, look_alikes, one_colour, thumbnails
from maebench.data.on_disk import OnDisk
from maebench.data.tree import readable
from maebench.encoders.inputs import IMAGES, examples_of
from maebench.errors import DataError

BATCH = 256  # images decoded at once
SHOWN = 3  # examples in a finding; the others are counted
SEVERITIES = ("note", "warning", "error")  # of which the last makes numbers wrong
# What is said of files and is no reason to look again.
HARMLESS = ("alpha", "deep", "groups", "orientation", "own results", "sampled")


@dataclass(frozen=True)
class Finding:
    """One thing to know of a data set.

    Args:
        severity: "error" where numbers would be wrong, "warning" where someone should look, "note".
        text: a sentence.
        examples: names of images or classes.
    """

    severity: str
    text: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = len(self.examples) - SHOWN
        some = ", ".join(self.examples[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
        return f"{self.text}: {some}" if self.examples else self.text


@dataclass(frozen=True)
class Looked:
    """What was seen of a split, image by image.

    Args:
        images: the split.
        names: of its images.
        headers: of its files, of those that can be read; none where it has no files.
        digests: of the pixels of each image, and of its mirror image.
        small: thumbnails of images, uint8 (N, 32, 32).
        constant: whether an image has one colour, bool (N,).
    """

    images: Images
    names: list[str]
    headers: list[FileHeader]
    digests: list[tuple[bytes, bytes]]
    small: NDArray[np.uint8]
    constant: NDArray[np.bool_]

    @property
    def noun(self) -> str:
        """What one of them is called."""
        return examples_of(self.images.info.inputs.kind).removesuffix("s")


@dataclass(frozen=True)
class Check:
    """What there is to know of a data set.

    Args:
        looked: its splits, train first.
        findings: errors first, then warnings, then notes.
    """

    looked: dict[str, Looked]
    findings: list[Finding] = field(default_factory=list)

    @property
    def worst(self) -> str:
        """The severity of the worst finding; "note" where there is none."""
        return max((f.severity for f in self.findings), key=SEVERITIES.index, default="note")


def check(splits: Splits, progress: Callable[[int, int], None] = lambda done, total: None) -> Check:
    """Looks at every image of both splits.

    Args:
        splits: the data set; its bad images are skipped and counted.
        progress: called with (done, total) while images are decoded.

    Raises:
        DataError: there is nothing to look at, such as no folder or no image.
    """
    images = {split: splits.load(split, progress) for split in ("train", "test")}
    folders = [path.parent for some in images.values() for path in paths_of(some)]
    root = Path(os.path.commonpath(folders)) if folders else Path()
    looked = {split: look(some, root, split) for split, some in images.items()}
    found = [
        *_of_remarks(splits),
        *_unreadable(looked),
        *_twice_in_a_split(looked),
        *_copies(looked["train"], looked["test"], splits.mirrored),
        *_alike(looked["train"], looked["test"], splits.mirrored),
        *_constant(looked),
        *_classes(looked["train"].images, looked["test"].images),
    ]
    return Check(looked, sorted(found, key=lambda f: -SEVERITIES.index(f.severity)))


def look(images: Images, root: Path, split: str) -> Looked:
    """Goes through a split once; `root` is the folder that names of files are relative to."""
    paths = paths_of(images)
    headers = list[FileHeader]()
    for path in paths:
        try:
            headers.append(read_header(path))
        except DataError:  # it was decoded: only damaged since
            continue
    digests, small, constant = list[tuple[bytes, bytes]](), [], []
    for batch in images.whole(BATCH):
        pixels = batch.cpu()
        if images.info.inputs.kind != IMAGES:  # nothing is mirrored, and nothing to be seen
            digests += [(mark, mark) for mark in map(_digest, pixels)]
            continue
        digests += [(_digest(image), _digest(image.flip(2))) for image in pixels]
        small.append(thumbnails(pixels))
        constant.append(one_colour(pixels).numpy())
    names = [readable(path.relative_to(root).as_posix()) for path in paths]
    return Looked(
        images=images,
        names=names or [f"{split} {i}" for i in images.info.ids.tolist()],
        headers=headers,
        digests=digests,
        small=np.concatenate(small) if small else np.zeros((0, SIDE, SIDE), np.uint8),
        constant=np.concatenate(constant) if constant else np.zeros(0, bool),
    )


def paths_of(images: Images) -> list[Path]:
    """The files of a split; none where it has none."""
    if isinstance(images, OnDisk):
        return [file.path for file in images.files]
    return list(images.paths) if isinstance(images, InMemory) else []


def _digest(image: torch.Tensor) -> bytes:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).digest()


def _some(count: int, what: str) -> str:
    """A count and its noun."""
    many = "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{many * (count != 1)}"


# ---- findings


def _of_remarks(splits: Splits) -> Iterator[Finding]:
    for split, remark in splits.remarks():
        if remark.what in ("in train and test", "one colour"):
            continue  # they are told with examples
        severity = "note" if remark.what in HARMLESS else "warning"
        yield Finding(severity, f"{split}: {remark}" if split else str(remark))


def _unreadable(looked: dict[str, Looked]) -> Iterator[Finding]:
    for split, one in looked.items():
        if skipped := one.images.info.skipped:
            count = len(skipped)
            yield Finding("error", f"{split}: {_some(count, 'file')} cannot be read", skipped)


def _twice_in_a_split(looked: dict[str, Looked]) -> Iterator[Finding]:
    for split, one in looked.items():
        places = defaultdict[bytes, list[int]](list)
        for i, (digest, _) in enumerate(one.digests):
            places[digest].append(i)
        several = [found for found in places.values() if len(found) > 1]
        labels = one.images.info.labels
        torn = [f for f in several if labels is not None and len(labels[f].unique()) > 1]
        plain = [f for f in several if f not in torn]
        if torn:
            yield Finding(
                "error",
                f"{split}: {_some(len(torn), one.noun)} in several classes",
                _written(one.names, torn),
            )
        if plain:
            more = sum(len(found) - 1 for found in plain)
            text = f"{split}: {_some(len(plain), one.noun)} more than once, {more:,} too many"
            yield Finding("warning", text, _written(one.names, plain))


def _written(names: list[str], found: list[list[int]]) -> tuple[str, ...]:
    return tuple(" = ".join(names[i] for i in same[:SHOWN]) for same in found)


def _copies(train: Looked, test: Looked, mirrored: bool) -> Iterator[Finding]:
    """Images of test that train has, by their pixels."""
    ours = {digest: i for i, (digest, _) in enumerate(train.digests)}
    pairs = list[tuple[int, int]]()
    for i, (digest, turned) in enumerate(test.digests):
        found = ours.get(digest, ours.get(turned) if mirrored else None)
        if found is not None:
            pairs.append((found, i))
    if pairs:
        count, whole = len(pairs), len(test.digests)
        share = f"{count:,} of {whole:,} test {test.noun}s, {count / whole:.1%},"
        names = tuple(f"{train.names[j]} = {test.names[i]}" for j, i in pairs)
        yield Finding("error", f"{share} are in train too", names)


def _alike(train: Looked, test: Looked, mirrored: bool) -> Iterator[Finding]:
    """Images of test that look like one of train, and are no copy of one."""
    ours = {digest for both in train.digests for digest in both[: 2 if mirrored else 1]}
    pairs = [
        (j, i)
        for j, i in look_alikes(train.small, test.small, mirrored)
        if test.digests[i][0] not in ours
    ]
    if pairs:
        names = tuple(f"{train.names[j]} ~ {test.names[i]}" for j, i in pairs)
        share = f"{len(pairs):,} of {len(test.digests):,} test images"
        yield Finding("warning", f"{share} look like one of train", names)


def _constant(looked: dict[str, Looked]) -> Iterator[Finding]:
    for split, one in looked.items():
        if one.constant.any():
            names = tuple(one.names[i] for i in np.flatnonzero(one.constant))
            yield Finding("warning", f"{split}: {_some(len(names), 'image')} of one colour", names)


def _classes(train: Images, test: Images) -> Iterator[Finding]:
    if train.info.labels is None or test.info.labels is None:
        yield Finding("note", "there are no labels: only evaluations without labels apply")
        return
    counts = {split: class_counts(images) for split, images in (("train", train), ("test", test))}
    noun = examples_of(train.info.inputs.kind).removesuffix("s")
    a = "an" if noun == "image" else "a"
    for split, there in counts.items():
        if none := [name for name, count in there.items() if not count]:
            severity = "error" if split == "train" else "warning"
            yield Finding(
                severity, f"{split}: {_some(len(none), 'class')} without {a} {noun}", tuple(none)
            )
        if one := [name for name, count in there.items() if count == 1]:
            yield Finding(
                "warning", f"{split}: {_some(len(one), 'class')} with one {noun}", tuple(one)
            )


def class_counts(images: Images) -> dict[str, int]:
    """The number of images of each class."""
    labels = images.info.labels
    found = Counter([] if labels is None else labels.tolist())
    return {name: found[i] for i, name in enumerate(images.info.class_names)}
