"""Decoded images on disk, so that a split too large for memory is decoded once and not each epoch.

A folder holds one split: `pixels`, images one after the other, and `index`, for each image of the
split where its pixels begin. Any process may read at any time. One at a time adds, under a lock:
first the pixels, at the end, then the record. So a process that is killed leaves at most bytes that
no record names. Nothing is mapped into memory: what another process cuts off would end this one.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import struct
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from maebench import files

FORMAT = 1  # of these files: raised when they change
RESERVE = 2**30  # bytes that stay free, for checkpoints and results
RECORD = struct.Struct("<QIIII")  # `Record`, and a check sum of its own
ENDED, DAMAGED = 0, 1  # what is said once


class Record(NamedTuple):
    """Where an image's pixels lie: first byte, rows, columns, and their check sum."""

    start: int
    rows: int
    columns: int
    sum: int


@dataclass(frozen=True)
class Decoded:
    """The decoded images of a split, of those that were decoded so far.

    Args:
        folder: where they lie.
        channels: of each image.
        most: bytes that `pixels` may have.
        said: `nothing_said()`, shared by the processes that read a split.
    """

    folder: Path
    channels: int
    most: int
    said: Tensor
    _checked: set[int] = field(default_factory=set)  # by this process: a sum takes a third of it

    def get(self, place: int) -> Tensor | None:
        """The image at this place of the split, uint8 (C, H, W); None where it is to be decoded."""
        try:
            record = self._record(place)
            return None if record is None else self._pixels(place, record)
        except ValueError:
            self._say(DAMAGED, "is damaged: its images are decoded anew")
            self._checked.discard(place)
            with contextlib.suppress(OSError), self._alone():
                files.write_at(self.folder / "index", place * RECORD.size, bytes(RECORD.size))
        except OSError:  # such as one that was cleaned away, or is another user's
            pass
        return None

    def add(self, place: int, pixels: Tensor) -> None:
        """Keeps an image, uint8 (C, H, W), unless the limit is reached or the disk is full."""
        if self.said[ENDED]:
            return
        try:
            with self._alone():
                self._add(place, pixels)
        except OSError as error:
            reason = error.strerror or str(error)
            self._say(ENDED, f"is not written any more: {reason}; images are decoded each time")

    def _add(self, place: int, pixels: Tensor) -> None:
        with contextlib.suppress(ValueError):
            if self._record(place) is not None:  # another process was quicker
                return
        data = pixels.permute(1, 2, 0).contiguous().numpy().data.cast("B")
        path = self.folder / "pixels"
        start = path.stat().st_size if path.exists() else 0
        if start + len(data) > self.most:
            self._say(ENDED, "is full: the other images are decoded each time (-o data.cache_gb=N)")
            return
        if shutil.disk_usage(self.folder).free < len(data) + RESERVE:
            raise OSError(errno.ENOSPC, "the disk is nearly full")
        files.write_at(path, start, data)
        fields = RECORD.pack(start, *pixels.shape[1:], zlib.crc32(data), 0)[:-4]
        files.write_at(self.folder / "index", place * RECORD.size, fields + _mark(place, fields))

    def _record(self, place: int) -> Record | None:
        """Where an image lies; None where it was not added.

        Raises:
            ValueError: the record is damaged.
        """
        raw = self._read("index", place * RECORD.size, RECORD.size).tobytes()
        if not any(raw):
            return None
        if len(raw) != RECORD.size or raw[-4:] != _mark(place, raw[:-4]):
            raise ValueError("damaged record")
        return Record(*RECORD.unpack(raw)[:-1])

    def _pixels(self, place: int, record: Record) -> Tensor:
        """The pixels of a record.

        Raises:
            ValueError: they are cut off, or others.
        """
        shape = record.rows, record.columns, self.channels
        data = self._read("pixels", record.start, record.rows * record.columns * self.channels)
        if place not in self._checked:
            if zlib.crc32(data.data) != record.sum:
                raise ValueError("damaged pixels")
            self._checked.add(place)
        return torch.from_numpy(data.reshape(shape)).permute(2, 0, 1)

    def _read(self, name: str, start: int, count: int) -> np.ndarray:
        """Bytes of a file; fewer where it ends, none where it is missing."""
        try:
            with (self.folder / name).open("rb", buffering=0) as file:
                file.seek(start)
                data = np.empty(count, np.uint8)
                return data[: file.readinto(data.data) or 0]
        except FileNotFoundError:
            return np.empty(0, np.uint8)

    def _alone(self) -> FileLock:
        return FileLock(self.folder / "lock")

    def _say(self, what: int, text: str) -> None:
        if not self.said[what]:
            self.said[what] = 1
            warnings.warn(f"the cache of decoded images {self.folder} {text}", stacklevel=2)


def nothing_said() -> Tensor:
    """Whether the end of caching, and damage, were said already: once by all processes together."""
    return torch.zeros(2, dtype=torch.uint8).share_memory_()


def _mark(place: int, fields: bytes) -> bytes:
    """The check sum of a record, which another image's does not have."""
    return zlib.crc32(fields, place).to_bytes(4, "little")
