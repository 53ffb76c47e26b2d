"""How much memory there is here, and what is said where something cannot fit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from maebench.errors import RunError

PROCESS, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")  # of Linux
# Where version 2 and version 1 of control groups have limit, use, and what of it is a cache of
# files, which is given back where it is needed.
FILES = {
    "": ("memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": (
        *("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("total_inactive_file", "total_active_file"),
    ),
}


def available() -> int | None:
    """Bytes that this process can still have, by the system and its control groups.

    None where the system does not say.
    """
    return min((n for n in (_of_system(), *_of_groups()) if n is not None), default=None)


def check_fits(what: str, size: int, advice: str) -> None:
    """Refuses what takes more memory than there is, before any of it is taken.

    Args:
        what: such as "1,437 images of 1x4096x4096".
        size: bytes.
        advice: what to do.

    Raises:
        RunError: it takes more; says what it takes and what there is.
    """
    there = available()
    if there is not None and size > there:
        raise RunError(
            f"{what} take up to {readable(size)} of memory, and {readable(there)} are free here: "
            f"{advice}"
        )


def readable(size: float) -> str:
    """Bytes in GiB, or in MiB where they are few."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def _of_system() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (PROCESS / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 2**10
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no such name, or no such value
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_groups() -> Iterator[int]:
    """What is left of the limits of the process's control groups and of those around them."""
    with contextlib.suppress(OSError):
        for line in (PROCESS / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in FILES:
                continue
            top = GROUPS / controllers
            inner = top / path.lstrip("/")
            # in a container the path is that of the host, and its own group is at the top
            for folder in {inner, *inner.parents, top}:
                if folder.is_relative_to(top):
                    yield from _left(folder, *FILES[controllers])


def _left(folder: Path, limit: str, used: str, caches: tuple[str, ...]) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # "max", or no such file
        most, now = (int((folder / name).read_text()) for name in (limit, used))
        lines = (folder / "memory.stat").read_text().splitlines()
        given_back = sum(int(n) for key, n in map(str.split, lines) if key in caches)
        yield max(0, most - now + given_back)
