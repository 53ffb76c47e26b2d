"""What a loaded split is: images that can be cropped, labels, class names and a fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from maebench.data.augment import Augment, Crops, crop_parameters, fits
from maebench.data.label_maps import LabelMaps, held_maps
from maebench.data.memory import check_fits
from maebench.data.on_disk import BLOCK, OnDisk
from maebench.data.resizing import cut, resize
from maebench.data.split_info import SplitInfo, digest, identity
from maebench.encoders.inputs import IMAGES, Inputs, examples_of
from maebench.errors import DataError, PluginError
from maebench.masking.mask import moved
from maebench.rng import permutation

# Numbers resized at a time: in single precision and twice, 2 GiB.
MOST_NUMBERS = 2**28
STATISTICS_SAMPLE = 2048  # images for mean and deviation: their standard error is below 0.1 %
OnBadImage = Literal["fail", "skip"]


class Images(Protocol):
    """A loaded split: `InMemory`, `OnDisk`, or `Rows` of what are no images."""

    @property
    def info(self) -> SplitInfo:
        """What is known beside the pixels."""

    def __len__(self) -> int:
        """The number of images."""

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All images in order at the split's size, uint8 (B, C, H, W); of others as they are."""

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some images at the split's size, uint8 (B, C, H, W)."""

    def crops(
        self, plan: Iterable[tuple[Tensor, Tensor]], augment: Augment, seed: int, device: str
    ) -> Iterator[Crops]:
        """Augmented batches on a device; `plan` gives positions (B,) and their epochs (B,)."""

    def subset(self, index: Tensor) -> Images:
        """The images at these positions."""


@dataclass(frozen=True)
class InMemory:
    """A split decoded once into one uint8 tensor (N, C, H, W).

    Args:
        pixels: all images.
        info: what is known beside the pixels.
        paths: the files that they come from, or none.
    """

    pixels: Tensor
    info: SplitInfo
    paths: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All images in order."""
        yield from self.pixels.split(batch)

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some images."""
        return self.pixels[list(index)]

    def crops(
        self, plan: Iterable[tuple[Tensor, Tensor]], augment: Augment, seed: int, device: str
    ) -> Iterator[Crops]:
        """Augmented batches; parameters are drawn on the CPU, crops cut on the device."""
        store = self.pixels.to(device) if fits(self.pixels, device) else None
        size = torch.tensor(self.info.size)
        for index, epoch in plan:
            ids = self.info.ids[index]
            sizes = size.expand(len(ids), 2)
            boxes, flips = crop_parameters(augment, seed, ids, epoch, sizes)
            some = (
                moved(self.pixels[index], device) if store is None else store[moved(index, device)]
            )
            where = moved(boxes, device), moved(flips, device)
            images = cut(some, *where, self.info.size, augment.shift)
            yield Crops(images, index, ids, epoch, boxes, flips, sizes)

    def subset(self, index: Tensor) -> InMemory:
        """The images at these positions."""
        paths = tuple(self.paths[i] for i in index.tolist()) if self.paths else ()
        return InMemory(self.pixels[index], self.info.at(index), paths)


def joined(names: Sequence[str]) -> bytes:
    """Names as bytes; a file system may hold names that are no text, but no zero."""
    return "\0".join(names).encode(errors="surrogateescape")


def check_room(count: int, channels: int, size: tuple[int, int], times: int = 1) -> None:
    """Refuses images that do not fit so many times, before any is decoded or resized.

    Raises:
        RunError: says what they take and what there is.
    """
    what = f"{count:,} images of {channels}x{size[0]}x{size[1]} (channels x rows x columns)"
    check_fits(what, times * count * channels * size[0] * size[1], "take a smaller --image-size")


def from_arrays(
    pixels: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    size: tuple[int, int] | None,
    maps: np.ndarray | None = None,
) -> InMemory:
    """A split from an array.

    Args:
        pixels: uint8 (N, H, W) or (N, C, H, W).
        labels: integers (N,), each the place of its class among the names; or None.
        class_names: one per class.
        size: rows and columns to resize to where they differ; None keeps the array's.
        maps: the class of each pixel, uint8 (N, H, W), 255 for none; or None.

    Raises:
        PluginError: pixels, labels or maps are of another kind or shape, or a label has no name.
    """
    shape = "x".join(map(str, pixels.shape))
    if pixels.dtype != "uint8" or pixels.ndim not in (3, 4):
        raise PluginError(f"pixels: uint8 (N, H, W) or (N, C, H, W), given {pixels.dtype} {shape}")
    if pixels.ndim == 4 and pixels.shape[3] in (1, 3, 4) and pixels.shape[1] not in (1, 2, 3, 4):
        raise PluginError(f"pixels: channels come before rows, (N, C, H, W), given {shape}")
    check_labels(labels, len(pixels), class_names)
    plane = (pixels.shape[0], *pixels.shape[-2:])
    if maps is not None and (maps.dtype != "uint8" or maps.shape != plane):
        wanted, given = ("x".join(map(str, s)) for s in (plane, maps.shape))
        raise PluginError(f"maps: uint8 {wanted}, as the images are, given {maps.dtype} {given}")
    images = torch.from_numpy(pixels[:, None] if pixels.ndim == 3 else pixels)
    if size is not None and size != tuple(images.shape[2:]):
        check_room(len(images), images.shape[1], size, 2)  # in parts, and then as one
        # in parts: in floating point the whole takes many times the memory of the result
        most = max(1, MOST_NUMBERS // (images.shape[1] * size[0] * size[1]))
        parts = (resize(part, size) for part in images.split(min(BLOCK, most)))
        images = torch.cat([(part + 0.5).clamp(0, 255).to(torch.uint8) for part in parts])
    sides = images.shape[2], images.shape[3]
    info = SplitInfo(
        ids=torch.arange(len(images)),
        labels=None if labels is None else torch.from_numpy(labels.astype("int64")),
        class_names=tuple(class_names),
        fingerprint="",
        inputs=Inputs.of_images(images.shape[1], sides, len(class_names) * (labels is not None)),
        maps=None if maps is None else held_maps(maps, sides),
    )
    return in_memory_images(images.contiguous(), info)


def with_maps(images: Images, maps: LabelMaps) -> Images:
    """The same images, known beside their label maps."""
    return replace(images, info=replace(images.info, maps=maps))  # type: ignore[type-var]


def check_labels(labels: np.ndarray | None, count: int, class_names: Sequence[str]) -> None:
    """Refuses labels that are no integer for each image, or name no class.

    Raises:
        PluginError: says which.
    """
    if labels is None:
        return
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise PluginError(
            f"labels: one integer for each of {count} images, given {labels.dtype} "
            f"{'x'.join(map(str, labels.shape))}"
        )
    if (bad := (labels < 0) | (labels >= len(class_names))).any():
        raise PluginError(
            f"labels: each the place of one of {len(class_names)} class names, from 0, given "
            f"{labels[bad][0]} for image {bad.argmax()} ({bad.sum()} of {len(labels)} are outside)"
        )


def in_memory_images(
    pixels: Tensor, info: SplitInfo, names: Sequence[str] = (), paths: Sequence[Path] = ()
) -> InMemory:
    """A split in memory with the fingerprint of its pixels, labels, ids and file names."""
    content = pixels.numpy().data.cast("B")
    mark = digest(*identity(info), joined(names), content)
    return InMemory(pixels, replace(info, fingerprint=mark), tuple(paths))


def limited(images: Images, limit: int, seed: int = 0) -> Images:
    """A class-balanced part of `limit` images, the same for every run.

    Each class gives the same number (or all it has); of the rest, the first in the seeded order.

    Args:
        images: the training split.
        limit: how many to keep.
        seed: of the order in which a class gives its images.

    Raises:
        DataError: `limit` is more than there is, or less than one image of each class.
    """
    if limit > len(images):
        each = examples_of(images.info.inputs.kind)
        raise DataError(f"--limit {limit}: train has only {len(images)} {each}")
    order = permutation(len(images), seed, "limit")
    labels = images.info.labels
    if labels is None:
        return images.subset(order[:limit].sort().values)
    # no probe can name a class that it never saw: its test images would all count as wrong
    if limit < (classes := len(labels.unique())):
        raise DataError(f"--limit {limit}: train has {classes} classes: give {classes} or more")
    ordered = labels[order]
    # the how-manieth of its class each image is: sorting by it takes classes in turn
    turn = torch.zeros_like(order)
    for c in ordered.unique():
        where = (ordered == c).nonzero()[:, 0]
        turn[where] = torch.arange(len(where))
    return images.subset(order[turn.argsort(stable=True)[:limit]].sort().values)


def statistics_of(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation that a model gets images normalised by; none of other inputs."""
    return channel_statistics(images) if images.info.inputs.kind == IMAGES else ((), ())


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in 0..1, from at most 2,048 images."""
    index = permutation(len(images), 0, "statistics")[:STATISTICS_SAMPLE].sort().values
    parts = images.pick(index.tolist()).split(BLOCK)  # in float64 all at once are gigabytes
    count = sum(part[:, 0].numel() for part in parts)
    total = torch.stack([part.double().sum((0, 2, 3)) for part in parts]).sum(0)
    squares = torch.stack([part.double().square().sum((0, 2, 3)) for part in parts]).sum(0)
    mean = total / count
    deviation = ((squares - count * mean.square()).clamp(min=0) / max(1, count - 1)).sqrt()
    means, deviations = ([round(v, 6) for v in x.tolist()] for x in (mean / 255, deviation / 255))
    return tuple(means), tuple(v or 1.0 for v in deviations)  # 0: one colour, nothing to scale


__all__ = [
    "Images",
    "InMemory",
    "OnBadImage",
    "OnDisk",
    "SplitInfo",
    "channel_statistics",
    "digest",
    "from_arrays",
    "limited",
]
