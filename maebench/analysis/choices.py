"""How sure the difference of two models is when what was chosen on train is chosen again."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maebench.analysis.stats import choice_interval
from maebench.evaluating import records
from maebench.evaluating.intervals import Interval
from maebench.evaluation import choose


def with_choices(path: Path, other: Path) -> Interval | None:
    """The interval of a difference in which each resample makes the choice on train again.

    Of equally good choices the middle one is taken. An evaluation may have its own way with ties,
    as kNN, which avoids its largest k; that way is not repeated.

    Args:
        path: the file of one model's rows.
        other: that of the other's, by the same evaluation on the same images.

    Returns:
        None where nothing was chosen, where outcomes of single images were not kept, or where they
        are of other images.
    """
    mine, theirs = _grid(path), _grid(other)
    if mine is None or theirs is None or not mine.of_same_images(theirs):
        return None
    return choice_interval(
        *(mine.held_out, mine.test, theirs.held_out, theirs.test),
        lambda scores: choose(scores.tolist()).index,
        groups=records.groups(path, held_out=True),
        test_groups=records.groups(path),
    )


class _Grid(NamedTuple):
    """Outcomes of all choices, a row each, and the ids of the images that they belong to."""

    held_out_ids: NDArray[np.int64]
    held_out: NDArray[np.float64]
    test_ids: NDArray[np.int64]
    test: NDArray[np.float64]

    def of_same_images(self, other: _Grid) -> bool:
        """Whether both are of the same images in the same order, as drawing them again takes."""
        return np.array_equal(self.held_out_ids, other.held_out_ids) and np.array_equal(
            self.test_ids, other.test_ids
        )


def _grid(path: Path) -> _Grid | None:
    """What all choices are worth on what was held out of train, and on test; None without it."""
    rows = records.read(path)
    main = next((row for row in rows if row["main"]), None)
    if main is None:
        return None
    held_out = [row for row in rows if row["split"] == records.HELD_OUT]
    outcomes = [(row, records.values(path, row)) for row in held_out]
    # of several metrics the first is the one by which choices are told apart, as in `mark_ranges`
    first = next((row["metric"] for row, found in outcomes if found is not None), None)
    held = {records.place_key(r): o for r, o in outcomes if r["metric"] == first and o is not None}
    tests = {
        records.place_key(row): records.values(path, row)
        for row in rows
        if row["metric"] == main["metric"] and row["value"] is not None
    }
    tested = [found for place in held if (found := tests.get(place)) is not None]
    if len(held) < 2 or len(tested) < len(held):
        return None
    (held_ids, _), (test_ids, _) = next(iter(held.values())), tested[0]
    return _Grid(
        *(held_ids, np.stack([values for _, values in held.values()])),
        *(test_ids, np.stack([values for _, values in tested])),
    )
