"""What files hold: read once, then known by path, size and time stamp until one of them changes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maebench import files
from maebench.data.decode import read_header, unreadable
from maebench.errors import DataError, RunError
from maebench.files import cache_folder

FORMAT = 1  # of what is kept: raised when digests or traits change, for those of before are wrong
PART = 2**16  # bytes of each of three parts of a file that is not read whole
READERS = 8  # threads: a disk is quickest with several requests at once
BLOCK = 1024  # files asked for at once
# A file may change twice within one tick of a file system's clock; FAT's is the coarsest in use.
TICK_NS = 2 * 10**9


@dataclass(frozen=True, slots=True)
class KnownFile:
    """An image file and what it held when it was read.

    Args:
        path: the file.
        size: in bytes.
        changed: its time stamp in nanoseconds, `time_stamp`; of no fingerprint, for a copy has
            another.
        digest: of its bytes, or of three parts of them.
        traits: what its header says, as `read_header` does; empty where it is no image.
        whole: whether the digest is of all bytes.
    """

    path: Path
    size: int
    changed: int
    digest: str
    traits: frozenset[str]
    whole: bool

    def check(self) -> None:
        """Refuses a file that holds something else than it did; another time stamp alone is fine.

        Raises:
            DataError: it changed, or is gone.
        """
        now = _stat(self.path)
        if (now.st_size, time_stamp(now)) == (self.size, self.changed):
            return
        if now.st_size != self.size or digest_of(self.path, self.size, self.whole) != self.digest:
            raise DataError(
                f"{self.path} was changed while the run went on: start it again, and it is "
                "another run"
            )


def known(
    paths: Sequence[Path],
    root: Path,
    whole: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[KnownFile]:
    """What each file holds, from what is kept of it where size and time stamp are the same.

    Args:
        paths: the files.
        root: the folder that names are relative to; what is kept lies in one file for each.
        whole: whether files are read whole; else three parts of each.
        progress: called with (done, total).

    Raises:
        DataError: a file cannot be read; names it.
    """
    name = files.short_hash([FORMAT, str(root), whole])
    place = cache_folder() / "files" / f"{name}.json"
    kept = _kept(place)
    found, started = [], time.time_ns()
    new = False
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), BLOCK):
            some = paths[start : start + BLOCK]
            names = [_name(path, root) for path in some]
            for file, was_kept in pool.map(
                lambda path, name: _known(path, kept.get(name), whole), some, names
            ):
                found.append(file)
                new |= not was_kept
            progress(len(found), len(paths))
    if new:
        _keep(place, root, kept, found, started)
    return found


def _known(path: Path, kept: Any, whole: bool) -> tuple[KnownFile, bool]:
    now = _stat(path)
    size, changed = now.st_size, time_stamp(now)
    if isinstance(kept, list) and len(kept) == 4 and kept[:2] == [size, changed]:
        digest, traits = str(kept[2]), frozenset(str(kept[3]).split(","))
        return KnownFile(path, size, changed, digest, traits - {""}, whole), True
    digest = digest_of(path, size, whole)
    traits = frozenset()
    with contextlib.suppress(DataError):  # who decodes it says so
        traits = read_header(path).traits
    return KnownFile(path, size, changed, digest, traits, whole), False


def _keep(
    place: Path, root: Path, kept: dict[str, Any], found: Sequence[KnownFile], started: int
) -> None:
    """Keeps what was found, of files whose time stamp would tell of a change from now on."""
    for file in found:
        name = _name(file.path, root)
        kept.pop(name, None)
        if file.changed < started - TICK_NS:
            kept[name] = [file.size, file.changed, file.digest, ",".join(sorted(file.traits))]
    with contextlib.suppress(RunError):  # nothing depends on it but time
        files.write_sealed(place, kept, place.stem)


def _name(path: Path, root: Path) -> str:
    """The name of a file as text, which a file system does not ask of it."""
    return os.fsencode(os.path.relpath(path, root)).decode("utf-8", "backslashreplace")


def _kept(place: Path) -> dict[str, Any]:
    if not place.exists():
        return {}
    try:
        return files.read_sealed(place, place.stem, hashed=(0,))
    except RunError as error:
        warnings.warn(f"{error}: the files are read again", stacklevel=2)
        return {}


def digest_of(path: Path, size: int, whole: bool) -> str:
    """Twenty hex digits that stand for a file's bytes, or for its size and three parts of it.

    Raises:
        DataError: it cannot be read; names it.
    """
    mark = hashlib.blake2b(str(size).encode(), digest_size=10)
    try:
        with path.open("rb") as file:
            for part in _whole(file) if whole else _parts(file, size):
                mark.update(part)
    except OSError as error:
        raise unreadable(path, error) from error
    return mark.hexdigest()


def _whole(file: Any) -> Iterator[bytes]:
    while part := file.read(2**20):
        yield part


def _parts(file: Any, size: int) -> Iterator[bytes]:
    """The first, the middle and the last part."""
    for start in sorted({0, max(0, size // 2 - PART // 2), max(0, size - PART)}):
        file.seek(start)
        yield file.read(PART)


def time_stamp(stat: os.stat_result) -> int:
    """When a file was last written, renamed or given another time, in nanoseconds.

    An archive or `cp -p` gives a new file the time of the old one; the time of that, `st_ctime`,
    nobody can give.
    """
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
