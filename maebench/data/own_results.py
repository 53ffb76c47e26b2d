"""Which folders hold what maebench wrote: beside images they are no class of theirs."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

# The folders below --results that hold folders, and what one of those holds at the least.
HOLDS = {
    "runs": {"config.json", "lock"},
    "models": {"model.json", "records", "features"},
    "comparisons": {"comparison.json"},
}
# Those that hold pictures, known by a neighbour or by the names of all: `data check` calls its
# sheets data-<data set>-<fingerprint>.png; `masks` writes a table beside each picture.
PICTURES = {
    "pictures": re.compile(r"data-.+-[0-9a-f]{8}\.png"),
    "masks": re.compile(r".+-[0-9a-f]{10}\.(png|csv)"),
}


def is_results(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder is one of results, or one that lies in it.

    Args:
        folder: the folder.
        names: what it holds, without hidden files.
    """
    inside = {*HOLDS, *PICTURES}
    if names and inside.issuperset(names):
        return any(_written(folder / name) for name in names)
    return folder.name in inside and _written(folder)


def _written(folder: Path) -> bool:
    """Whether one of the folders below --results holds what is written there, or nothing yet."""
    names = _names(folder)
    if folder.name in PICTURES:
        beside = any(_known(folder.with_name(name)) for name in HOLDS)
        return beside or all(map(PICTURES[folder.name].fullmatch, names))
    return not names or _known(folder)


def _known(folder: Path) -> bool:
    """Whether a folder of runs, models or comparisons holds one of them."""
    known = HOLDS[folder.name]
    return any(not known.isdisjoint(_names(folder / name)) for name in _names(folder))


def _names(folder: Path) -> list[str]:
    """What a folder holds; nothing where it is none, or may not be entered: its reader says so."""
    try:
        return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
