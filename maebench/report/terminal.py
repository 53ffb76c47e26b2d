"""The table as a person at a terminal reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from maebench.errors import plain
from maebench.outputs import Cell
from maebench.report.printed import FRAME, Line, Sheet

LEAST = 3  # columns beside the index, however long its texts are


def say(text: str, style: str | None = None, whole: bool = False) -> None:
    """Prints a line, which a terminal gets broken between words unless it is to be copied whole."""
    Line(text, style, whole).show()


def print_table(table: pd.DataFrame) -> None:
    """Prints a table; where the terminal is too narrow for it, row by row."""
    sheet_of(table).show()


def sheet_of(table: pd.DataFrame) -> Sheet:
    """A table's columns and cells as they are printed."""
    rows = [[_readable(cell) for cell in row] for row in table.itertuples(index=False)]
    texts = [_is_text(table.iloc[:, i]) for i in range(table.shape[1])]
    return Sheet([str(name) for name in table.columns], rows, texts)


def _is_text(column: pd.Series) -> bool:
    """Whether a column holds names, which may be broken anywhere, and no numbers."""
    return not any(isinstance(cell, Cell | int | float) for cell in column)


def bands(table: pd.DataFrame, width: int) -> Iterator[pd.DataFrame]:
    """A wide table in as many parts as it takes to fit a terminal, the index in each of them.

    Args:
        table: to print; its columns' heads are broken into lines at dashes and spaces.
        width: of the terminal, in characters.
    """
    fixed = [str(name) for name in table.index.names if name is not None]
    heads = [str(name).replace("-", "-\n").replace(" ", "\n") for name in table.columns]
    flat = table.set_axis(heads, axis=1).reset_index(drop=not fixed)
    needs = {head: _width(head, flat[head]) for head in [*fixed, *heads]}
    space, left = width - sum(needs[name] for name in fixed) - 1, heads
    while left:
        count, used = 0, 0
        while count < len(left) and (used + needs[left[count]] <= space or count < LEAST):
            used += needs[left[count]]
            count += 1
        yield flat[fixed + left[:count]]
        left = left[count:]


def _width(head: str, cells: pd.Series) -> int:
    """The characters of a printed column, with its frame."""
    return max(len(text) for text in [*head.split("\n"), *map(_readable, cells)]) + FRAME


def _readable(cell: object) -> str:
    """Text as it is; a number with commas and six digits, nothing for one that is not there."""
    if isinstance(cell, str | dict | Cell):  # a dict is the `where` of a tidy table
        return plain(str(cell))
    if pd.isna(cell):  # type: ignore[call-overload]
        return ""
    return f"{cell:,.6g}" if isinstance(cell, float) else f"{cell:,}"


def protocols(rows: pd.DataFrame) -> str:
    """Which protocols and versions the numbers are of, in the order of their columns."""
    said = rows["protocol"].dropna() if "protocol" in rows else pd.Series(dtype=str)
    return "protocols " + ", ".join(dict.fromkeys(said))


def edges(rows: pd.DataFrame) -> list[str]:
    """A warning for each winner that lies on the edge of its grid."""
    found = []
    for row in rows[rows["main"].astype(bool)].to_dict("records"):
        if row["where"].get("edge"):
            at = ", ".join(
                f"{k}={v}" for k, v in row["where"].items() if k not in ("chosen", "edge")
            )
            found.append(
                f"warning: {row['evaluation']} of {row['model']}: the choice made on train, {at}, "
                "lies on the edge of the grid that was tried: widen it with -o"
            )
    return found
