"""How a split that is too large for memory is read: from its files, ahead of time, by workers."""

from __future__ import annotations

import os
import signal
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
from maebench.data.decode import Decoding, fit, read_pixels, to_image
from maebench.data.decoded import Decoded
from maebench.data.kept import Keeping
from maebench.data.regions import Regions, packed, region
from maebench.data.resizing import cut_one
from maebench.data.split_info import SplitInfo
from maebench.errors import DataError

MOST_WORKERS = 8  # each holds three batches of crops: 0.5 GB for 256 of 224x224
BLOCK = 256  # images handed to threads at once: what is still read after an error or Ctrl-C
# Bytes of decoded images that a worker holds: some 60 of 500x375, whose crops are then drawn at
# once; for one alone that takes as long as decoding it.
HELD = 2**25


@dataclass(frozen=True)
class OnDisk:
    """A split that is too large for memory; crops are cut from the original files by workers.

    Args:
        files: the image files, and what they held when the split was loaded.
        info: what is known beside the pixels.
        how: what becomes of the files' levels, colours, alpha and orientation.
        workers: processes that read; 0 reads in this one.
        keeping: where decoded images are kept; None decodes them each time.
    """

    files: tuple[KnownFile, ...]
    info: SplitInfo
    how: Decoding
    workers: int = 2
    keeping: Keeping | None = None

    def __len__(self) -> int:
        return len(self.files)

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All images in order, decoded by workers.

        Raises:
            DataError: an image cannot be read; names it.
        """
        order = (part.tolist() for part in torch.arange(len(self)).split(batch))
        yield from _by_workers(_Whole(self._source()), order, self.workers)

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some images, decoded by threads.

        Raises:
            DataError: an image cannot be read, or was changed; names it.
        """
        source = self._source()
        with ThreadPoolExecutor(num_workers()) as pool:
            parts = [[int(i) for i in index[at : at + BLOCK]] for at in range(0, len(index), BLOCK)]
            return torch.cat([torch.stack([*pool.map(source.whole, part)]) for part in parts])

    def crops(
        self, plan: Iterable[tuple[Tensor, Tensor]], augment: Augment, seed: int, device: str
    ) -> Iterator[Crops]:
        """Augmented batches, read by workers ahead of time, and cut by them or on a GPU.

        Raises:
            DataError: an image cannot be read; names it.
        """
        batches = ([*zip(i.tolist(), e.tolist(), strict=True)] for i, e in plan)
        # the copy out of pinned memory goes on while the step before is computed
        on_gpu = torch.device(device).type == "cuda"
        items = _Cropped(self._source(), augment, seed, cuts=not on_gpu)
        for made in _by_workers(items, batches, self.workers, pin=on_gpu):
            yield made.cut(device, self.info.size) if on_gpu else made

    def subset(self, index: Tensor) -> OnDisk:
        """The images at these positions."""
        return replace(
            self, files=tuple(self.files[i] for i in index.tolist()), info=self.info.at(index)
        )

    def _source(self) -> _Source:
        kept = None if self.keeping is None else self.keeping.begin(len(self))
        return _Source(self.files, self.info, self.how, kept)


@dataclass(frozen=True)
class _Source:
    """The original images of a split, each decoded or as it was kept when it was."""

    files: tuple[KnownFile, ...]
    info: SplitInfo
    how: Decoding
    kept: Decoded | None = None

    def pixels(self, position: int) -> Tensor:
        """One image, uint8 (C, H, W).

        Raises:
            DataError: it cannot be read, or was changed; names it.
        """
        file, place = self.files[position], int(self.info.ids[position])
        if self.kept is not None and (pixels := self.kept.get(place)) is not None:
            file.check()
            return pixels
        pixels, _ = read_pixels(file.path, self.how)
        file.check()  # afterwards: what was decoded is then what was known
        if self.kept is not None:
            self.kept.add(place, pixels)
        return pixels

    def whole(self, position: int) -> Tensor:
        """One image at the split's size, uint8 (C, h, w)."""
        return _fitted(self.pixels(position), self.info.size)


@dataclass(frozen=True)
class _Whole:
    """What a worker makes of a batch of positions: whole images, or the error to raise."""

    source: _Source

    def __getitems__(self, index: list[int]) -> Tensor | DataError:
        try:
            return torch.stack([self.source.whole(i) for i in index])
        except DataError as error:
            return error


@dataclass(frozen=True)
class _Cropped:
    """What a worker makes of a batch of (position, epoch): crops, or the error to raise.

    Args:
        source: the images.
        augment: how they are cropped and mirrored.
        seed: of the crops.
        cuts: whether it cuts them itself; else it gives what they are cut of.
    """

    source: _Source
    augment: Augment
    seed: int
    cuts: bool = True

    def __getitems__(self, batch: list[tuple[int, int]]) -> Crops | Regions | DataError:
        made, waiting, held = list[Crops](), list[Tensor](), 0
        regions: list[Tensor] = []
        try:
            for number, (position, _) in enumerate(batch, 1):
                waiting.append(self.source.pixels(position))
                held += waiting[-1].numel()
                if held >= HELD or number == len(batch):
                    some = batch[number - len(waiting) : number]
                    made.append(self._cropped(waiting, some, regions))
                    waiting, held = [], 0
            crops = Crops.stack(made)
            return crops if self.cuts else Regions(packed(regions, crops.flips), crops)
        except DataError as error:
            return error

    def _cropped(
        self, images: list[Tensor], batch: list[tuple[int, int]], regions: list[Tensor]
    ) -> Crops:
        index, epochs = torch.tensor(batch).T
        info = self.source.info
        ids, sizes = info.ids[index], torch.tensor([image.shape[1:] for image in images])
        boxes, flips = crop_parameters(self.augment, self.seed, ids, epochs, sizes)
        each = zip(images, boxes.int().tolist(), flips.tolist(), strict=True)
        if self.cuts:
            pixels = torch.cat([cut_one(image, box, flip, info.size) for image, box, flip in each])
        else:
            regions += [region(image, box) for image, box, _ in each]
            pixels = torch.empty(len(images), 0)
        return Crops(pixels, index, ids, epochs, boxes, flips, sizes)


def _by_workers(
    items: Any, batches: Iterable[list[Any]], workers: int, pin: bool = False
) -> Iterator[Any]:
    """`items.__getitems__` of each batch, in order, two for each process made ahead.

    Errors come back as values: torch would wrap one into a page of a worker's traceback.
    """
    loader = DataLoader(
        items,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin,
        generator=torch.Generator(),  # its own: the global state is left as found
        worker_init_fn=_alone,
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


def _alone(_: int) -> None:
    """Leaves signals to the parent: a terminal sends Ctrl-C to all processes of a command."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _as_it_is(made: Any) -> Any:
    return made


def by_threads(
    paths: Sequence[Path], size: tuple[int, int], how: Decoding
) -> Iterator[tuple[Tensor, frozenset[str]] | DataError]:
    """Each image at this size with its traits, in order, or why it cannot be read.

    Threads, not processes: they start at once, and decoders work beside Python.
    """

    def read(path: Path) -> tuple[Tensor, frozenset[str]] | DataError:
        try:
            pixels, traits = read_pixels(path, how)
            return _fitted(pixels, size), traits
        except DataError as error:
            return error

    with ThreadPoolExecutor(num_workers()) as pool:
        for start in range(0, len(paths), BLOCK):
            yield from pool.map(read, paths[start : start + BLOCK])


def _fitted(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """An image at this size, as `fit` makes it."""
    if pixels.shape[1:] == size:
        return pixels.contiguous()
    return fit(to_image(pixels), size)


def num_workers() -> int:
    """As many as this process may use cores, up to a limit of memory."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # not on macOS
    return min(MOST_WORKERS, len(allowed) if allowed else os.cpu_count() or 1)
