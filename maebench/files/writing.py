"""How bytes reach the disk: beside, flushed, renamed.

Every file of maebench is written here, so that a crash at any point leaves the old file or the
new one and nothing between.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from maebench.errors import ReadOnlyError, RunError
from maebench.files.leftovers import BESIDE, beside

ASIDE = "damaged-"  # prefix of what cannot be read and was moved out of the way
# The system's answers that mean "not here" and not "not now".
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# What file systems say that cannot flush a folder, such as shares and some in user space.
NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, *READ_ONLY}


def make_folder(path: Path, flag: str = "--results or MAEBENCH_RESULTS") -> Path:
    """The folder, made with its parents where it was missing.

    Raises:
        RunError: it cannot be made; ReadOnlyError where nobody may write to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"cannot write to folder {path}: {error.strerror or error}"
        raise failure(error)(f"{said}. Choose another one with {flag}") from error
    if not os.access(path, os.W_OK):
        raise ReadOnlyError(
            f"cannot write to folder {path}: permission denied, or the storage is read-only. "
            f"Choose another one with {flag}"
        )
    return path


def check_writable(folder: Path) -> None:
    """Makes a folder where it is missing and tries it, for rights do not say all on a share.

    Raises:
        ReadOnlyError: nothing can be written there.
        RunError: the disk is full, or the folder cannot be made.
    """
    write_text(folder / f"{BESIDE}tried", "")
    remove(folder / f"{BESIDE}tried")


def failure(error: OSError) -> type[RunError]:
    """What kind of failure the system's answer is."""
    return ReadOnlyError if error.errno in READ_ONLY else RunError


def write(path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write a file beside `path`, flushes it and renames it into place.

    Raises:
        RunError: the disk is full or the folder cannot be written (then a ReadOnlyError); what was
            there before stays.
    """
    write_together({path: fill})


def write_together(fills: Mapping[Path, Callable[[Path], None]]) -> None:
    """Writes files that belong together: all are made beside and flushed before one is renamed.

    Between two renames, some microseconds, a crash can leave the first new and the second old:
    the second has to hold the hash of the first.

    Args:
        fills: what writes each file, by its path, in the order of the renames.

    Raises:
        RunError: as `write`; what was there before stays.
    """
    made: dict[Path, Path] = {}
    path = next(iter(fills))
    try:
        for path, fill in fills.items():
            make_folder(path.parent)
            if path.exists() and not path.is_file():  # a rename would take /dev/null away
                raise RunError(f"cannot write {path}: it is no regular file")
            made[path] = beside(path)
            fill(made[path])
            with made[path].open("rb") as file:
                os.fsync(file.fileno())
        for path, new in made.items():
            new.replace(path)
        for folder in dict.fromkeys(path.parent for path in made):
            _flush_folder(folder)
    except OSError as error:
        raise failure(error)(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for new in made.values():
            with contextlib.suppress(OSError):  # such as a name too long: it is not there
                new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file as a whole."""
    write(path, lambda beside: _write_exactly(beside, text))


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file as a whole; NaN and infinity are refused."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """A JSON value as the text of a file."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` fill a folder beside `path`, flushes its files and renames it into place."""
    make_folder(path.parent)
    new, before = beside(path), beside(path)
    try:
        new.mkdir()
        fill(new)
        for file in new.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():  # a rename cannot replace a full folder: what was there goes last
            path.rename(before)
        new.rename(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise failure(error)(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # whatever came between the two renames, a signal too: what was there goes back to its place
        if before.exists() and not path.exists():
            before.rename(path)
        for left in (new, before):
            shutil.rmtree(left, ignore_errors=True)


def write_at(path: Path, start: int, data: bytes | memoryview) -> None:
    """Writes bytes into a file, which is made where it is missing; what is there is overwritten.

    For caches alone, whose readers check what they read: a crash may leave a part of it. Where the
    disk is full, a file that was longer by it is cut back.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    path.touch()
    before = path.stat().st_size
    try:
        with path.open("r+b", buffering=0) as file:
            file.seek(start)
            left = memoryview(data)
            while left:  # a system call writes what there is room for, and says so the next time
                left = left[file.write(left) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, before)
        raise


def open_log(path: Path) -> BinaryIO:
    """A file that a process adds its messages to; what was there stays.

    Raises:
        RunError: the folder cannot be written.
    """
    make_folder(path.parent)
    try:
        return path.open("ab")
    except OSError as error:
        raise failure(error)(f"cannot write {path}: {error.strerror or error}") from error


def remove(path: Path) -> None:
    """Removes a file or a folder that is no longer needed; half of a folder is never left."""
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        if path.is_dir() and not path.is_symlink():
            gone = beside(path)  # where a sweep finds what a killed process leaves
            path.rename(gone)
            shutil.rmtree(gone)
        else:
            path.unlink()


def move_aside(path: Path) -> Path:
    """Gives a damaged file or folder another name, under which nobody reads it, and tells it.

    One that was moved before makes room.

    Raises:
        RunError: the folder cannot be written.
    """
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            remove(aside)
            path.rename(aside)
    except OSError as error:
        raise failure(error)(f"cannot move {path} aside: {error.strerror or error}") from error
    return aside


def _write_exactly(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _flush_folder(folder: Path) -> None:
    """Flushes the names in a folder where the file system can: elsewhere only a power cut tells."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
