"""How much two models differ, image by image, in what is equal in all but the model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maebench.analysis.choices import with_choices
from maebench.analysis.stats import Difference, paired_difference
from maebench.evaluating import records
from maebench.report.apart import MARK, conditions, told_apart
from maebench.report.table import grouped, headlines

Row = Mapping[Any, Any]


class Pair(NamedTuple):
    """A number of a model, and the other's that is equal in all else; None where there is none."""

    row: Row
    other: Row | None


def differences(rows: pd.DataFrame, model: str, other: str) -> list[tuple[str, Difference, str]]:
    """Paired differences of the main metrics, model minus other: (column, difference, unit).

    Only numbers that are equal in all but their model are paired: of one column, measured under the
    same conditions and groups with the same seed of the evaluation. `unpaired` names the others.
    """
    pairs = [pair for pair in _pairs(rows, model, other) if pair.other is not None]
    times = Counter(pair.row["column"] for pair in pairs)
    found = []
    for row, same in pairs:
        assert same is not None
        difference = _difference(row, same)
        if difference is not None:
            apart = [row[MARK], same[MARK], f"evaluation seed {row['seed']}"]
            apart = [row["column"], *(apart if times[row["column"]] > 1 else ())]
            found.append((", ".join(dict.fromkeys(filter(None, apart))), difference, row["unit"]))
    return found


def unpaired(rows: pd.DataFrame, model: str, other: str) -> list[tuple[str, str]]:
    """The evaluations of which both have a number and none is paired, each with the reason."""
    of: dict[str, list[Pair]] = {}
    for pair in _pairs(rows, model, other):
        of.setdefault(pair.row["options"], []).append(pair)
    found = []
    for name, pairs in of.items():
        alike = [(pair.row, pair.other) for pair in pairs if pair.other is not None]
        if not alike:
            found.append((name, "they differ in more than the encoder"))
        elif not any(_has_values(row) and _has_values(same) for row, same in alike):
            found.append((name, "it has no number per image"))
    return found


def _has_values(row: Row) -> bool:
    return records.values(Path(row["file"]), row) is not None


def _pairs(rows: pd.DataFrame, model: str, other: str) -> list[Pair]:
    main = headlines(rows)
    main = main[(main["status"] == "ok") & main["model"].isin((model, other))]
    # a number that stands in several lines is one
    names = ("model", "dataset", "column", "seed", "file", "value")
    apart = [same[-1] for same in grouped(told_apart(main), names).values()]
    alike: dict[Hashable, dict[Hashable, Row]] = {}
    mine: dict[Hashable, Row] = {}
    for row in apart:
        if row["model"] == other:
            alike.setdefault(_under(row), {})[row[MARK]] = row
        else:
            mine[_under(row), row[MARK]] = row
    both = {row["options"] for found in alike.values() for row in found.values()}
    return [
        Pair(row, same)
        for row in mine.values()
        if row["options"] in both
        for same in alike.get(_under(row), {"": None}).values()
    ]


def _under(row: Row) -> Hashable:
    """What has to be equal for two numbers to be paired."""
    return row["column"], row["dataset"], conditions(row), _grouping(row), row["seed"]


def _grouping(row: Row) -> str:
    """The hash of which test images are together, whatever their groups are called."""
    if pd.isna(row["num_groups"]):
        return ""
    groups = records.groups(Path(row["file"]))
    assert groups is not None, "they were counted"
    _, first, place = np.unique(groups, return_index=True, return_inverse=True)
    return hashlib.sha256(first[place].astype(np.int64).tobytes()).hexdigest()


def _difference(row: Row, same: Row) -> Difference | None:
    """The paired difference of two rows; None where their metric has no number per image."""
    path, other = Path(row["file"]), Path(same["file"])
    mine, theirs = records.values(path, row), records.values(other, same)
    if mine is None or theirs is None:
        return None
    found = paired_difference(*mine, *theirs, groups=records.groups(path))
    return replace(found, choice=with_choices(path, other))
