"""How sure the difference of two models is when what was chosen on train is chosen again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maebench.analysis.stats import choice_interval
from maebench.evaluating import records
from maebench.evaluating.intervals import Interval
from maebench.evaluation import choose


def with_choices(path: Path, other: Path) -> Interval | None:
    """The interval of a difference in which each resample makes the choice on train again.

    Args:
        path: the file of one model's rows.
        other: that of the other's, by the same evaluation on the same images.

    Returns:
        None where nothing was chosen, or where outcomes of single images were not kept.
    """
    mine, theirs = _grid(path), _grid(other)
    if mine is None or theirs is None or mine[0].shape[1] != theirs[0].shape[1]:
        return None
    return choice_interval(
        *mine,
        *theirs,
        lambda scores: choose(scores.tolist()).index,
        groups=records.groups(path, held_out=True),
        test_groups=records.groups(path),
    )


def _grid(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Outcomes of all choices on what was held out of train, and on test; None without them."""
    rows = records.read(path)
    main = next((row for row in rows if row["main"]), None)
    if main is None:
        return None

    def place(row: records.Row) -> tuple[Any, ...]:
        return tuple((k, v) for k, v in row["where"].items() if k not in ("chosen", "edge"))

    tests = {place(r): r for r in rows if r["metric"] == main["metric"] and r["value"] is not None}
    held = {place(r): r for r in rows if r["split"] == records.HELD_OUT}
    if len(held) < 2 or held.keys() - tests.keys():
        return None
    found = [[records.values(path, table[p]) for p in held] for table in (held, tests)]
    if any(one is None for part in found for one in part):
        return None
    stacked = [np.stack([one[1] for one in part if one is not None]) for part in found]
    return stacked[0], stacked[1]
