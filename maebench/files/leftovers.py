"""What killed processes left half-written: how it is named, and which of it nobody works on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

BESIDE = ".writing-"  # prefix of what is not complete yet; readers skip it
NAMED = re.compile(re.escape(BESIDE) + r"([A-Za-z0-9.]+)-(\d+)-[0-9a-f]{8}-")
DAY = 86400  # seconds after which what another host began is taken to be abandoned


def beside(path: Path) -> Path:
    """Where a file or a folder is made before it is renamed to `path`.

    Two hosts on one share may have processes of the same number, so it is their names and chance
    that tell them apart.
    """
    mark = f"{here()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.parent / f"{BESIDE}{mark}-{path.name[-32:]}"  # a name has 255 bytes at most


def here() -> str:
    """What stands for this host and its table of processes, of which a container has its own."""
    host = re.sub(r"[^A-Za-z0-9]+", "", socket.gethostname())[:16] or "host"
    space = ""
    with contextlib.suppress(OSError):  # elsewhere than on Linux there is one table
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{host}.{hashlib.blake2b(space.encode(), digest_size=2).hexdigest()}"


def is_alive(place: str, pid: int) -> bool | None:
    """Whether a process of this host is there; None of another host, whom nobody can ask."""
    if place != here() or os.name == "nt":  # where asking would end it
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def is_abandoned(path: Path) -> bool:
    """Whether what is half-written was a dead process's, or is of another host and a day old."""
    named = NAMED.match(path.name)
    alive = is_alive(named[1], int(named[2])) if named else None
    if alive is not None:
        return not alive
    try:
        return time.time() - path.lstat().st_mtime > DAY
    except OSError:  # it is gone
        return False


def abandoned(folder: Path) -> Iterator[Path]:
    """What dead processes left half-written in a folder and the folders in it."""
    for pattern in (f"{BESIDE}*", f"*/{BESIDE}*"):
        with contextlib.suppress(OSError):  # the folder is not there
            yield from (path for path in sorted(folder.glob(pattern)) if is_abandoned(path))
