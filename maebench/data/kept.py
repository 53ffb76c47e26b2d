"""What is kept between commands to save time: where it lies, how large and old it is, its removal.

It may be removed at any time: what is missing is found out again.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features
from torch import Tensor

from maebench import files
from maebench.data.decoded import FORMAT, Decoded, nothing_said
from maebench.errors import RunError

MOST_GB = 20.0  # of decoded images, unless the user says otherwise; and no more than
FREE_SHARE = 10  # the tenth part of what is free
UNUSED_DAYS = 1.0  # after which a split's decoded images make room for another's
DAY = 86400  # seconds
DECODED = "decoded"
# Folders and files of the cache -> what they hold. Others are not touched: who knows whose they are
# where MAEBENCH_CACHE is a folder of all kinds of things?
WHAT = {
    DECODED: "decoded images",
    "files": "what image files hold, by size and time stamp",
    "attention.json": "which attention is faster",
    "compiling.json": "what compiling gains",
}


@dataclass(frozen=True)
class Keeping:
    """Where, and whether, the decoded images of a split are kept.

    Args:
        key: stands for the files' contents and how they are read.
        title: whose images they are.
        channels: of each image.
        each: bytes of an image, decoded, on average.
        most_gb: the limit of all splits together in GiB; None: 20, at most a tenth of what is free.
    """

    key: str
    title: str
    channels: int
    each: float
    most_gb: float | None = None
    said: Tensor = field(default_factory=nothing_said, compare=False)

    def begin(self, num_images: int) -> Decoded | None:
        """The images decoded so far; None where these would take more than the limit.

        Where only a part fitted, each epoch would read that and decode the rest: it takes as much
        of the disk and saves little.
        """
        folder = files.cache_folder() / DECODED / self.key
        try:
            files.make_folder(folder)
            most = make_room(folder, self.each * num_images, self.most_gb)
            if self.each * num_images > most:
                if not (folder / "pixels").exists():
                    files.remove(folder)
                return None
            # its time stamp is that of the last use
            files.write_json(folder / "about.json", {"title": self.title})
        except (OSError, RunError):  # what nobody can write saves no time, and that is all
            return None
        return Decoded(folder, self.channels, int(most), self.said)


def decoder() -> str:
    """What decides how a file is decoded, beside its bytes and the options."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("pillow", "torchvision")]
    return ", ".join([*versions, f"libjpeg {features.version('jpg')}", f"format {FORMAT}"])


def make_room(folder: Path, wanted: float, most_gb: float | None) -> float:
    """Bytes that a split's decoded images may take; those of others go, if long not used.

    Args:
        folder: the split's.
        wanted: bytes that it may need.
        most_gb: as in `Keeping`.
    """
    others = [part for part in parts() if part.kind == DECODED and part.path != folder]
    if most_gb is None:
        free = shutil.disk_usage(folder).free + sum(part.size for part in others) + size_of(folder)
        most_gb = min(MOST_GB, free / FREE_SHARE / 2**30)
    left = most_gb * 2**30 - sum(part.size for part in others)
    for part in sorted(others, key=lambda part: part.used):
        if wanted <= left or part.age() < UNUSED_DAYS:
            break
        remove(part)
        left += part.size
    return max(0.0, left)


@dataclass(frozen=True)
class Part:
    """A part of what is kept, which can be removed alone.

    Args:
        path: a file or a folder.
        kind: the file or folder of the cache that it is in, such as "decoded".
        title: whose it is, where that is known.
        size: bytes on the disk.
        used: when it was last used or written, in seconds since 1970.
    """

    path: Path
    kind: str
    title: str
    size: int
    used: float

    def age(self) -> float:
        """Days since it was last used."""
        return max(0.0, (time.time() - self.used) / DAY)


def parts() -> list[Part]:
    """All that is kept, by kind and the time of its last use, the newest first."""
    found = []
    for kind in WHAT:
        place = files.cache_folder() / kind
        inside = sorted(place.iterdir()) if place.is_dir() else [place] * place.exists()
        found += [_part(path, kind) for path in inside if not path.name.startswith(files.BESIDE)]
    return sorted(found, key=lambda part: (part.kind, -part.used))


def remove(part: Part) -> None:
    """Removes a part; a process that uses it goes on without.

    Raises:
        RunError: it cannot be removed.
    """
    try:
        files.remove(part.path)
    except FileNotFoundError:  # another process was quicker
        pass
    except OSError as error:
        raise RunError(f"cannot remove {part.path}: {error.strerror or error}") from error


def _part(path: Path, kind: str) -> Part:
    about, title = path / "about.json", ""
    with contextlib.suppress(RunError):
        title = str(files.read_object(about).get("title", ""))
    used = 0.0
    with contextlib.suppress(OSError):
        used = (about if about.exists() else path).stat().st_mtime
    return Part(path, kind, title, size_of(path), used)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder; what is removed meanwhile has none."""
    total = 0
    for file in path.rglob("*") if path.is_dir() else [path]:
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total
