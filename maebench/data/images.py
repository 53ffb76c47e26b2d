"""What a loaded split is: images that can be cropped, labels, class names and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from maebench.data.augment import Augment, Crops, crop_boxes, crop_parameters, cut, resize
from maebench.errors import DataError
from maebench.rng import Draws, permutation

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor

STATISTICS_SAMPLE = 2048  # images for mean and deviation: their standard error is below 0.1 %
OnBadImage = Literal["fail", "skip"]


@dataclass(frozen=True)
class About:
    """What is known of a split beside its pixels.

    Args:
        ids: int64 (N,), each image's number in the whole split, kept by subsets.
        labels: int64 (N,) or None.
        class_names: one name per class, in the order of the labels.
        fingerprint: changes when the content does.
        size: rows and columns every image is brought to.
        channels: 1 or 3 (or what the source has).
        skipped: names of images that could not be read and were left out.
    """

    ids: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    fingerprint: str
    size: tuple[int, int]
    channels: int
    skipped: tuple[str, ...] = ()

    def at(self, index: Tensor) -> About:
        """The same for a part of the split; the fingerprint covers which part."""
        ids = self.ids[index]
        labels = None if self.labels is None else self.labels[index]
        mark = digest(self.fingerprint.encode(), ids.numpy().tobytes())
        return replace(self, ids=ids, labels=labels, fingerprint=mark)


class Images(Protocol):
    """A loaded split; `InMemory` and `OnDisk` are the two kinds."""

    about: About

    def __len__(self) -> int:
        """The number of images."""

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All images in order at the split's size, uint8 (B, C, H, W)."""

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
    """A split decoded once into one uint8 tensor (N, C, H, W)."""

    pixels: Tensor
    about: About

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
        """Augmented batches; parameters, cropping and flipping are batched on the device."""
        import torch

        store = self.pixels.to(device)
        size = torch.tensor(self.about.size, device=device)
        for index, epoch in plan:
            ids, epoch = self.about.ids[index].to(device), epoch.to(device)
            boxes, flips = crop_parameters(augment, seed, ids, epoch, size.expand(len(ids), 2))
            images = cut(
                store[index.to(device)].float(), boxes, flips, self.about.size, augment.shift
            )
            yield Crops(images, index, ids, epoch, boxes, flips)

    def subset(self, index: Tensor) -> InMemory:
        """The images at these positions."""
        return InMemory(self.pixels[index], self.about.at(index))


@dataclass(frozen=True)
class OnDisk:
    """A split that is too large for memory; crops are cut from the original files by workers."""

    paths: tuple[Path, ...]
    about: About
    workers: int = 2

    def __len__(self) -> int:
        return len(self.paths)

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All images in order, decoded by workers."""
        from torch.utils.data import DataLoader

        items = _Whole(self.paths, self.about)
        yield from DataLoader(items, batch, num_workers=self.workers)

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some images."""
        import torch

        items = _Whole(self.paths, self.about)
        return torch.stack([items[int(i)] for i in index])

    def crops(
        self, plan: Iterable[tuple[Tensor, Tensor]], augment: Augment, seed: int, device: str
    ) -> Iterator[Crops]:
        """Augmented batches, cut by workers and moved to the device."""
        from torch.utils.data import DataLoader

        sampler = ([*zip(i.tolist(), e.tolist(), strict=True)] for i, e in plan)
        items = _Cropped(self.paths, self.about, augment, seed)
        loader = DataLoader(
            items, batch_sampler=sampler, num_workers=self.workers, collate_fn=Crops.stack
        )
        for crops in loader:
            yield crops.to(device)

    def subset(self, index: Tensor) -> OnDisk:
        """The images at these positions."""
        return replace(
            self, paths=tuple(self.paths[i] for i in index.tolist()), about=self.about.at(index)
        )


@dataclass(frozen=True)
class _Whole:
    """The map-style data set of whole images that workers read."""

    paths: tuple[Path, ...]
    about: About

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return fit(read_image(self.paths[index], self.about.channels), self.about.size)


@dataclass(frozen=True)
class _Cropped:
    """The map-style data set of crops that workers cut; an item is (position, epoch)."""

    paths: tuple[Path, ...]
    about: About
    augment: Augment
    seed: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> Crops:
        import torch

        index, epoch = torch.tensor(item[:1]), torch.tensor(item[1:])
        pixels = to_tensor(read_image(self.paths[item[0]], self.about.channels))[None]
        ids = self.about.ids[index]
        size = torch.tensor([pixels.shape[2:]])
        boxes, flips = crop_parameters(self.augment, self.seed, ids, epoch, size)
        images = cut(pixels.float(), boxes, flips, self.about.size, self.augment.shift)
        return Crops(images, index, ids, epoch, boxes, flips)


def read_image(path: Path, channels: int) -> Image:
    """A decoded image of one or three channels; gray, colour, palette and alpha are brought there.

    Raises:
        DataError: the file is no image or is cut off; names it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I"):  # 16 bits of gray: PIL would clip them at 255
                image = image.point(lambda v: v / 257).convert("L")
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), path.name)
        raise DataError(
            f"cannot read image {path}: {reason}. Remove it, or use --on-bad-image skip"
        ) from error


def to_tensor(image: Image) -> Tensor:
    """The pixels of a gray or colour image, uint8 (C, H, W)."""
    import numpy as np
    import torch

    pixels = np.array(image)  # a copy: torch wants memory it may write to
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def fit(image: Image, size: tuple[int, int]) -> Tensor:
    """The largest centred part of the wanted shape, resized (bicubic, antialiased), uint8 (C, H, W)."""
    from PIL import Image as Pillow

    width, height = image.size
    scale = min(width / size[1], height / size[0])
    w, h = size[1] * scale, size[0] * scale
    left, top = (width - w) / 2, (height - h) / 2
    if (width, height) != (size[1], size[0]):
        image = image.resize(
            (size[1], size[0]), Pillow.Resampling.BICUBIC, box=(left, top, left + w, top + h)
        )
    return to_tensor(image)


def from_files(
    paths: Sequence[Path],
    labels: Sequence[int] | None,
    class_names: Sequence[str],
    root: Path,
    size: tuple[int, int],
    channels: int,
    on_bad_image: OnBadImage,
    memory_limit: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Images:
    """A split from image files: decoded once where it fits into `memory_limit` bytes, else read on demand.

    Raises:
        DataError: no image can be read, or one is bad and `on_bad_image` is "fail".
    """
    import torch

    in_memory = len(paths) * channels * size[0] * size[1] <= memory_limit
    good: list[int] = []
    skipped: list[str] = []
    decoded: list[Tensor] = []
    for i, path in enumerate(paths):
        if in_memory or on_bad_image == "skip":
            try:
                image = fit(read_image(path, channels), size)
            except DataError:
                if on_bad_image == "fail":
                    raise
                skipped.append(str(path.relative_to(root)))
                continue
            if in_memory:
                decoded.append(image)
        good.append(i)
        progress(i + 1, len(paths))
    if not good:
        raise DataError(f"no image in {root} can be read ({len(skipped)} files were tried)")
    kept = [paths[i] for i in good]
    about = About(
        ids=torch.arange(len(kept)),
        labels=None if labels is None else torch.tensor([labels[i] for i in good]),
        class_names=tuple(class_names),
        fingerprint="",
        size=size,
        channels=channels,
        skipped=tuple(skipped),
    )
    if in_memory:
        return in_memory_images(torch.stack(decoded), about)
    # Reading every byte of a large set takes hours: names and sizes stand for the content.
    listing = "\n".join(f"{p.relative_to(root)} {p.stat().st_size}" for p in kept)
    mark = digest(listing.encode(), _label_bytes(about.labels), repr(size).encode())
    return OnDisk(tuple(kept), replace(about, fingerprint=mark))


def from_arrays(
    pixels: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str], size: tuple[int, int] | None
) -> InMemory:
    """A split from an array uint8 (N, H, W) or (N, C, H, W), resized where `size` differs."""
    import torch

    images = torch.from_numpy(pixels[:, None] if pixels.ndim == 3 else pixels)
    if size is not None and size != tuple(images.shape[2:]):
        parts = [resize(part.float(), size) for part in images.split(1024)]
        images = torch.cat([(p + 0.5).clamp(0, 255).to(torch.uint8) for p in parts])
    about = About(
        ids=torch.arange(len(images)),
        labels=None if labels is None else torch.from_numpy(labels.astype("int64")),
        class_names=tuple(class_names),
        fingerprint="",
        size=(images.shape[2], images.shape[3]),
        channels=images.shape[1],
    )
    return in_memory_images(images.contiguous(), about)


def in_memory_images(pixels: Tensor, about: About) -> InMemory:
    """A split in memory with the fingerprint of its pixels and labels."""
    mark = digest(
        repr(tuple(pixels.shape)).encode(), pixels.numpy().tobytes(), _label_bytes(about.labels)
    )
    return InMemory(pixels, replace(about, fingerprint=mark))


def limited(images: Images, limit: int, seed: int = 0) -> Images:
    """A class-balanced part of `limit` images, the same for every run.

    Each class gives the same number (or all it has); of the rest, the first in the seeded order.

    Raises:
        DataError: `limit` is more than there is.
    """
    import torch

    if limit > len(images):
        raise DataError(f"--limit {limit}: train has only {len(images)} images")
    order = permutation(len(images), seed, "limit")
    labels = images.about.labels
    if labels is None:
        return images.subset(order[:limit].sort().values)
    ordered = labels[order]
    # the how-manieth of its class each image is: sorting by it takes classes in turn
    turn = torch.zeros_like(order)
    for c in ordered.unique():
        where = (ordered == c).nonzero()[:, 0]
        turn[where] = torch.arange(len(where))
    return images.subset(order[turn.argsort(stable=True)[:limit]].sort().values)


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels in 0..1, from at most 2,048 images."""
    import torch

    index = permutation(len(images), 0, "statistics")[:STATISTICS_SAMPLE].sort().values
    pixels = images.pick(index.tolist()).double() / 255
    deviation, mean = torch.std_mean(pixels, dim=(0, 2, 3))
    deviation = torch.where(deviation > 0, deviation, 1.0)  # one colour only: nothing to scale
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in deviation.tolist())


def digest(*parts: bytes) -> str:
    """Twenty hex digits that stand for these bytes."""
    mark = hashlib.blake2b(digest_size=10)
    for part in parts:
        mark.update(len(part).to_bytes(8) + part)
    return mark.hexdigest()


def _label_bytes(labels: Tensor | None) -> bytes:
    return b"" if labels is None else labels.numpy().tobytes()


__all__ = [
    "About",
    "Draws",
    "Images",
    "InMemory",
    "OnDisk",
    "channel_statistics",
    "crop_boxes",
    "digest",
    "fit",
    "from_arrays",
    "from_files",
    "limited",
    "read_image",
]
