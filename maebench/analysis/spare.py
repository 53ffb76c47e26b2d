"""What of a results folder and of the cache can go: leftovers, and what is made again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maebench import files
from maebench.data import kept
from maebench.errors import RunError
from maebench.evaluating import partial

WHAT = {
    "temporary": "half-written files of processes that are gone",
    "damaged": "what was moved aside because it could not be read",
    "partial": "how far evaluations were that have not gone on for an hour",
    "features": "features, which are computed again when they are needed",
    "cache": "what is kept between commands (maebench cache list)",
}
HOUR = 3600  # seconds; an evaluation that is at work writes every few


@dataclass(frozen=True)
class Spare:
    """A file or folder that can go.

    Args:
        path: it.
        what: a key of WHAT.
        size: in bytes.
    """

    path: Path
    what: str
    size: int

    def remove(self) -> None:
        """Removes it.

        Raises:
            RunError: it cannot be.
        """
        try:
            with contextlib.suppress(FileNotFoundError):  # somebody was quicker
                files.remove(self.path)
        except OSError as error:
            raise RunError(f"cannot remove {self.path}: {error.strerror or error}") from error


def spare_below(results: Path) -> Iterator[Spare]:
    """All that can go, of a results folder and of the cache, kind by kind."""
    homes = [
        path for kind in ("runs", "models", "comparisons") for path in (results / kind).glob("*")
    ]
    homes = sorted(path for path in homes if path.is_dir())
    temporary = [*files.abandoned(results), *files.abandoned(files.cache_folder())]
    temporary += [left for home in homes for left in files.abandoned(home)]
    for path in dict.fromkeys(temporary):
        yield _spare(path, "temporary")
    for home in homes:
        for pattern in (f"{files.ASIDE}*", f"*/{files.ASIDE}*"):
            for path in sorted(home.glob(pattern)):
                yield _spare(path, "damaged")
    for home in homes:
        for path in sorted(home.glob(f"{partial.FOLDER}/*.safetensors")):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > HOUR:
                    yield _spare(path, "partial")
    for home in homes:
        for path in sorted(home.glob("features/*.safetensors")):
            if not path.name.startswith((files.BESIDE, files.ASIDE)):
                yield _spare(path, "features")
    for part in kept.parts():
        yield Spare(part.path, "cache", part.size)


def _spare(path: Path, what: str) -> Spare:
    return Spare(path, what, kept.size_of(path))
