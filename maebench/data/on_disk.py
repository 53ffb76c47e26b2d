"""How a split that is too large for memory is read: from its files, ahead of time, by workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from maebench.data.augment import Augment, Crops, crop_parameters
from maebench.data.content import KnownFile
from maebench.data.decode import Decoding, crop, fit, read_image
from maebench.data.split_info import SplitInfo
from maebench.errors import DataError

MOST_WORKERS = 8  # each holds three batches of crops: 0.5 GB for 256 of 224x224
BLOCK = 256  # images handed to threads at once: what is still read after an error or Ctrl-C


@dataclass(frozen=True)
class OnDisk:
    """A split that is too large for memory; crops are cut from the original files by workers.

    Args:
        files: the image files, and what they held when the split was loaded.
        info: what is known beside the pixels.
        how: what becomes of the files' levels, colours, alpha and orientation.
        workers: processes that read; 0 reads in this one.
    """

    files: tuple[KnownFile, ...]
    info: SplitInfo
    how: Decoding
    workers: int = 2

    def __len__(self) -> int:
        return len(self.files)

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All images in order, decoded by workers.

        Raises:
            DataError: an image cannot be read; names it.
        """
        order = (part.tolist() for part in torch.arange(len(self)).split(batch))
        yield from _by_workers(_Whole(self.files, self.info, self.how), order, self.workers)

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some images.

        Raises:
            DataError: an image cannot be read, or was changed; names it.
        """
        images = []
        chosen = [self.files[int(i)] for i in index]
        for found in by_threads([file.path for file in chosen], self.info.size, self.how):
            if isinstance(found, DataError):
                raise found
            images.append(found[0])
        for file in chosen:  # afterwards: what was decoded is then what was known
            file.check()
        return torch.stack(images)

    def crops(
        self, plan: Iterable[tuple[Tensor, Tensor]], augment: Augment, seed: int, device: str
    ) -> Iterator[Crops]:
        """Augmented batches, cut by workers and moved to the device.

        Raises:
            DataError: an image cannot be read; names it.
        """
        batches = ([*zip(i.tolist(), e.tolist(), strict=True)] for i, e in plan)
        items = _Cropped(self.files, self.info, self.how, augment, seed)
        for crops in _by_workers(items, batches, self.workers):
            yield crops.to(device)

    def subset(self, index: Tensor) -> OnDisk:
        """The images at these positions."""
        return replace(
            self, files=tuple(self.files[i] for i in index.tolist()), info=self.info.at(index)
        )


@dataclass(frozen=True)
class _Whole:
    """What a worker makes of a batch of positions: whole images, or the error to raise."""

    files: tuple[KnownFile, ...]
    info: SplitInfo
    how: Decoding

    def __getitems__(self, index: list[int]) -> Tensor | DataError:
        try:
            return torch.stack([self._image(self.files[i]) for i in index])
        except DataError as error:
            return error

    def _image(self, file: KnownFile) -> Tensor:
        image, _ = read_image(file.path, self.how)
        file.check()
        return fit(image, self.info.size)


@dataclass(frozen=True)
class _Cropped:
    """What a worker makes of a batch of (position, epoch): crops, or the error to raise."""

    files: tuple[KnownFile, ...]
    info: SplitInfo
    how: Decoding
    augment: Augment
    seed: int

    def __getitems__(self, batch: list[tuple[int, int]]) -> Crops | DataError:
        try:
            return Crops.stack([self._crop(*item) for item in batch])
        except DataError as error:
            return error

    def _crop(self, position: int, epoch: int) -> Crops:
        image, _ = read_image(self.files[position].path, self.how)
        self.files[position].check()
        index, epochs = torch.tensor([position]), torch.tensor([epoch])
        ids = self.info.ids[index]
        size = torch.tensor([[image.height, image.width]])
        boxes, flips = crop_parameters(self.augment, self.seed, ids, epochs, size)
        top, left, height, width = boxes[0].int().tolist()
        pixels = crop(image, (top, left, height, width), bool(flips), self.info.size)
        return Crops(pixels, index, ids, epochs, boxes, flips, size)


def _by_workers(items: Any, batches: Iterable[list[Any]], workers: int) -> Iterator[Any]:
    """`items.__getitems__` of each batch, in order, made ahead by processes.

    Errors come back as values: torch would wrap one into a page of a worker's traceback.
    """
    loader = DataLoader(
        items,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # its own: the global state is left as found
    )
    try:
        for made in loader:
            if isinstance(made, DataError):
                raise made
            yield made
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            "a process that reads images was killed, mostly for want of memory or of shared "
            f"memory (/dev/shm): a smaller --batch needs less. {error}"
        ) from error


def _as_it_is(made: Any) -> Any:
    return made


def by_threads(
    paths: Sequence[Path], size: tuple[int, int], how: Decoding
) -> Iterator[tuple[Tensor, frozenset[str]] | DataError]:
    """Each image at this size with its traits, in order, or why it cannot be read.

    Threads, not processes: they start at once, and PIL decodes beside Python.
    """

    def read(path: Path) -> tuple[Tensor, frozenset[str]] | DataError:
        try:
            image, traits = read_image(path, how)
            return fit(image, size), traits
        except DataError as error:
            return error

    with ThreadPoolExecutor(num_workers()) as pool:
        for start in range(0, len(paths), BLOCK):
            yield from pool.map(read, paths[start : start + BLOCK])


def num_workers() -> int:
    """As many as this process may use cores, up to a limit of memory."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # not on macOS
    return min(MOST_WORKERS, len(allowed) if allowed else os.cpu_count() or 1)
