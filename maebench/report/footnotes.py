"""What stands below a table: by which methods its numbers and differences were found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from maebench.analysis.stats import Difference
from maebench.evaluating.records import HELD_OUT
from maebench.outputs import Cell
from maebench.report.apart import MARK

CHOICE = (
    "choice: the range of test values over the choices that validation cannot tell from the one "
    "that was made"
)
MARKS = (
    f"{MARK}: numbers of lines with different marks are not comparable; one that reads no train "
    "images stands in each line of its model"
)


def footnotes(shown: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The lines below a table.

    Args:
        shown: the rows that the table shows.
        table: its cells.
    """
    done = shown[shown["status"] == "ok"]
    cells = [cell for name in table for cell in table[name] if isinstance(cell, Cell)]
    lines = [_values(done), _groups(done)]
    if any(cell.over == "evaluation seeds" and cell.num_runs for cell in cells):
        lines.append("evaluation seeds: the same model evaluated again with another seed")
    lines += [CHOICE] * any(cell.choice for cell in cells)
    return [line for line in [*lines, MARKS * (MARK in table)] if line]


def _values(done: pd.DataFrame) -> str:
    """Of what the values are means, and the method of each interval."""
    if done.empty:
        return ""
    held_out = (done["split"] == HELD_OUT).all()
    text = f"Values are means over {'images held out of train' if held_out else 'test images'}"
    methods = done["interval"].where(done["interval"].notna(), None).astype(object)
    # versions that did not write the method had one
    methods[methods.isna() & done["low"].notna()] = "bootstrap"
    if methods.notna().any():
        names = done["evaluation"] + " " + done["metric"]
        text += f" with 95 % intervals: {by_method(zip(methods, names, strict=True))}"
    return text + "."


def _groups(done: pd.DataFrame) -> str:
    """How many groups the images make."""
    found = done[done["num_groups"].notna()]
    several = found["dataset"].nunique() > 1
    said = dict.fromkeys(
        f"{num:.0f} groups{f' ({name})' * several}"
        for name, num in zip(found["dataset"], found["num_groups"], strict=True)
    )
    return f"Images belong to {', '.join(said)}, which are drawn again whole." if said else ""


def of_differences(found: Sequence[tuple[str, Difference, str]]) -> str:
    """The methods of paired differences and their tests; empty where there are none."""
    pairs = [(f"{d.method} and {d.test} test", name) for name, d, _ in found]
    if not pairs:
        return ""
    text = f"Paired differences: {by_method(pairs)}."
    if any(d.choice is not None for _, d, _ in found):
        text += (
            " Choices made again: the bootstrap in which each resample of train and test images "
            "also chooses again on what was held out of train."
        )
    return text


def by_method(pairs: Iterable[tuple[str | None, str]]) -> str:
    """Each method, and of what it is where there are several."""
    methods: dict[str, dict[str, None]] = {}
    for method, name in pairs:
        if isinstance(method, str):
            methods.setdefault(method, {})[name] = None
    if len(methods) == 1:
        return next(iter(methods))
    return "; ".join(f"{method} ({', '.join(names)})" for method, names in methods.items())
