"""Who may write to a folder now, and whether it is still the folder that it was."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from maebench.errors import RunError
from maebench.files.leftovers import BESIDE, abandoned, here, is_alive
from maebench.files.sealed import read_object
from maebench.files.writing import failure, make_folder, remove, write_json

LOCK, OWNER = "lock", "owner.json"
# Between taking the lock and giving its name a process writes one small file; a disk that is busy
# takes a second for it.
NAMELESS_SECONDS = 2.0
PAUSE = 0.02  # seconds between two looks


@dataclass(frozen=True)
class Held:
    """A folder that this process holds.

    Args:
        folder: it.
        inode: of the file that is locked, by which the folder is known.
    """

    folder: Path
    inode: int

    def is_there(self) -> bool:
        """Whether it is still the folder that was locked."""
        try:
            return (self.folder / LOCK).stat().st_ino == self.inode
        except OSError:
            return False

    def check(self) -> None:
        """Finds out whether the folder is still there.

        Raises:
            RunError: it was removed, moved away, or replaced by another.
        """
        if not self.is_there():
            raise RunError(
                f"{self.folder} was removed or replaced while this process worked in it; what it "
                "held is where it was moved to, or lost"
            )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[Held]:
    """Holds the folder for this process; the system frees it when the process dies, however.

    Raises:
        RunError: another process holds it, named with its host and number.
    """
    make_folder(folder)
    held = FileLock(folder / LOCK)
    try:
        _acquire(held, folder)
    except OSError as error:
        raise failure(error)(f"cannot lock {folder}: {error.strerror or error}") from error
    try:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "place": here()}
        write_json(folder / OWNER, who)
        _sweep(folder)
        yield Held(folder, (folder / LOCK).stat().st_ino)
    finally:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)
        held.release()


def _acquire(held: FileLock, folder: Path) -> None:
    """Takes the lock, or says who has it.

    Who has just taken it gives its name in a moment, and who has just died has left its own.

    Raises:
        RunError: another process holds it.
    """
    until = time.monotonic() + NAMELESS_SECONDS
    while True:
        with contextlib.suppress(Timeout):
            held.acquire(timeout=0)
            return
        who = _owner(folder)
        known = who is not None and is_alive(str(who.get("place")), who["pid"]) is not False
        if known or time.monotonic() > until:
            pid, host = (who["pid"], who["host"]) if who and known else ("unknown", "unknown")
            raise RunError(
                f"{folder} is in use by process {pid} on {host}; wait for it to end or stop it"
            )
        time.sleep(PAUSE)


def _owner(folder: Path) -> dict[str, Any] | None:
    """Host and number of the process that gave its name; None where that cannot be read."""
    with contextlib.suppress(RunError):  # it may be written or removed at this moment
        who = read_object(folder / OWNER)
        if type(who.get("pid")) is int and isinstance(who.get("host"), str):
            return who
    return None


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits for others that write the same files of a folder, and holds it for a moment.

    Raises:
        RunError: the folder cannot be written.
    """
    make_folder(folder)
    try:
        with FileLock(folder / f".{LOCK}"):
            yield
    except OSError as error:
        raise failure(error)(f"cannot lock {folder}: {error.strerror or error}") from error


def _sweep(folder: Path) -> None:
    """Removes what a killed process left half-written; only the lock's holder may.

    In the folder and its checkpoints nobody else writes; beside them evaluations may be at work,
    which take no lock.
    """
    own = [*folder.glob(f"{BESIDE}*"), *folder.glob(f"checkpoint/{BESIDE}*")]
    for left in {*own, *abandoned(folder)}:
        remove(left)
