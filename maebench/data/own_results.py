"""Which folders hold what maebench wrote: beside images they are no class of theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

# The folders below --results, and by what each of them is known: a part of what every folder in it
# holds. Pictures are known by their neighbours, or by the names that `data check` gives them.
HOLDS = {
    "runs": {"config.json"},
    "models": {"model.json", "records", "features"},
    "comparisons": {"comparison.json"},
}
PICTURES = "pictures"
SHEET = re.compile(r"data-.+-[0-9a-f]{8}\.png")  # `data-<data set>-<fingerprint>.png`


def is_results(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder is one of results, or one that lies in it.

    Args:
        folder: the folder.
        names: what it holds, without hidden files.
    """
    inside = {*HOLDS, PICTURES}
    if names and inside.issuperset(names):
        return any(_written(folder / name) for name in names)
    return folder.name in inside and _written(folder)


def _written(folder: Path) -> bool:
    """Whether one of the folders below --results holds what is written there."""
    names = _names(folder)
    if folder.name == PICTURES:
        beside = any(_written(folder.with_name(name)) for name in HOLDS)
        return beside or (bool(names) and all(map(SHEET.fullmatch, names)))
    known = HOLDS[folder.name]
    return any(not known.isdisjoint(_names(folder / name)) for name in names)


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:  # no folder, or one that may not be entered: its own reader says so
        return []
