"""How bytes reach the disk: beside, flushed, renamed; and who may write there now.

Every file of maebench is written here, so that a crash at any point leaves the old file or the
new one and nothing between.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from maebench.errors import ConfigError, ReadOnlyError, RunError

# Letters, digits, dot, dash and underscore; no leading dot, so no name can climb or hide.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
BESIDE = ".writing-"  # prefix of what is not complete yet; readers skip it
CACHE = "MAEBENCH_CACHE"  # the folder of what is kept between commands; below the user's own cache
SHOWN = 40  # characters of a wrong value in a message
# The system's answers that mean "not here" and not "not now".
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# What file systems say that cannot flush a folder, such as shares and some in user space.
NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, *READ_ONLY}


def safe_name(name: str) -> str:
    """The name itself where it is a safe file name.

    Raises:
        RunError: it could leave its folder or is not portable.
    """
    if not SAFE_NAME.fullmatch(name):
        raise RunError(
            f"{name!r} cannot be a file name: allowed are letters, digits, '.', '_', '-', "
            "first a letter or digit, 200 characters at most"
        )
    return name


def with_home(path: str | Path) -> Path:
    """The path with the home folder in place of a leading ~ or ~USER.

    Raises:
        ConfigError: there is no such user.
    """
    if not str(path).startswith("~") and str(Path(path)).startswith("~"):
        return Path(path).absolute()  # ./~ is a name, and Path forgets the dot
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise ConfigError(
            f"cannot read {path}: there is no home folder for {user}; write the whole path, or "
            f"./{user} for a file of this name"
        ) from error


def cache_folder() -> Path:
    """Where what is costly to find out is kept: MAEBENCH_CACHE, else the user's cache folder."""
    if named := os.environ.get(CACHE):
        return with_home(named)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return with_home(home) / "maebench"


def make_folder(path: Path, flag: str = "--results or MAEBENCH_RESULTS") -> Path:
    """The folder, made with its parents where it was missing.

    Raises:
        RunError: it cannot be made; ReadOnlyError where nobody may write to it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"cannot write to folder {path}: {error.strerror or error}"
        raise _failure(error)(f"{said}. Choose another one with {flag}") from error
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


def _failure(error: OSError) -> type[RunError]:
    """What kind of failure the system's answer is."""
    return ReadOnlyError if error.errno in READ_ONLY else RunError


def _beside(path: Path) -> Path:
    """Where a file or a folder is made before it is renamed to `path`.

    Two hosts on one share may have processes of the same number, so it is their names and chance
    that tell them apart.
    """
    host = re.sub(r"[^A-Za-z0-9]+", "", socket.gethostname())[:16]
    mark = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.parent / f"{BESIDE}{mark}-{path.name[-32:]}"  # a name has 255 bytes at most


def write(path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` write a file beside `path`, flushes it and renames it into place.

    Raises:
        RunError: the disk is full or the folder cannot be written (then a ReadOnlyError); what was
            there before stays.
    """
    make_folder(path.parent)
    beside = _beside(path)
    try:
        if path.exists() and not path.is_file():  # a rename would take /dev/null away
            raise RunError(f"cannot write {path}: it is no regular file")
        fill(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _failure(error)(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # such as a name too long: it is not there
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file as a whole."""
    write(path, lambda beside: _write_exactly(beside, text))


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file as a whole; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Lets `fill` fill a folder beside `path`, flushes its files and renames it into place."""
    make_folder(path.parent)
    beside = _beside(path)
    try:
        beside.mkdir()
        fill(beside)
        for file in beside.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():  # a rename cannot replace a full folder: what was there goes last
            before = _beside(path)
            path.rename(before)
            beside.rename(path)
            shutil.rmtree(before)
        else:
            beside.rename(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise _failure(error)(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Adds one JSON object as a line; a torn last line is what `read_lines` ignores.

    Raises:
        RunError: the disk is full or the file cannot be written.
    """
    append_lines(path, [value])


def append_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Adds JSON objects as lines; a torn last line is what `read_lines` ignores.

    Raises:
        RunError: the disk is full or the file cannot be written.
    """
    make_folder(path.parent)
    try:
        with path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                file.write(b"\n")  # a crash cut the last line: start a new one
            file.write("".join(json.dumps(value) + "\n" for value in values).encode())
            file.flush()
    except OSError as error:
        raise _failure(error)(f"cannot write {path}: {error.strerror or error}") from error


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
        raise _failure(error)(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        RunError: missing, cut off or not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if not text:
            raise RunError(f"{path} cannot be read: it is empty")
        return json.loads(text)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or error
        raise RunError(f"{path} cannot be read: {said}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        RunError: missing, cut off, or not a JSON object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise RunError(f"{path} cannot be read: an object is wanted, it holds {shortened(value)}")
    return value


def shortened(value: Any) -> str:
    """A JSON value as a message shows it."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def read_lines(path: Path, *needed: str) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that a crash cut off are left out.

    Args:
        path: the file; none is like an empty one.
        needed: keys of numbers; a line that lacks one is left out too.
    """
    rows = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and all(isinstance(row.get(k), int | float) for k in needed):
                rows.append(row)
    return rows


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(value: Any) -> str:
    """Ten hex digits of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def remove(path: Path) -> None:
    """Removes a file or a folder that is no longer needed."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds the folder for this process; the system frees it when the process dies, however.

    Raises:
        RunError: another process holds it, named with its host and number.
    """
    make_folder(folder)
    owner = folder / "owner.json"
    held = FileLock(folder / "lock")
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        who: dict[str, Any] = {"host": "unknown", "pid": "unknown"}
        with contextlib.suppress(RunError):  # it may be written or removed at this moment
            who |= read_object(owner)
        raise RunError(
            f"{folder} is in use by process {who['pid']} on {who['host']}; "
            "wait for it to end or stop it"
        ) from error
    except OSError as error:
        raise _failure(error)(f"cannot lock {folder}: {error.strerror or error}") from error
    try:
        _sweep(folder)
        write_json(owner, {"host": socket.gethostname(), "pid": os.getpid()})
        yield
    finally:
        owner.unlink(missing_ok=True)
        held.release()


def _sweep(folder: Path) -> None:
    """Removes what a killed process left half-written; only the lock's holder may."""
    # not in records/ or features/: there an evaluation may be writing, which takes no lock
    for left in [*folder.glob(f"{BESIDE}*"), *folder.glob(f"checkpoint/{BESIDE}*")]:
        remove(left)


def _write_exactly(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


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
