"""The table as a person at a terminal reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Console
from rich.table import Table

from maebench.outputs import Cell

WIDE = 200  # columns where the output is no terminal: nothing is cut off
LEAST = 3  # columns beside the index, however long its texts are


def console() -> Console:
    """Standard output, wide where it is a file or a pipe."""
    # a name with [brackets] is a name and no markup
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=WIDE)


def print_table(table: pd.DataFrame) -> None:
    """Prints a table."""
    shown = Table()
    for name in table.columns:
        shown.add_column(str(name), overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(_readable(cell) for cell in row))
    console().print(shown)


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
    """The characters of a printed column, with a space on both sides and a line."""
    return max(len(text) for text in [*head.split("\n"), *map(_readable, cells)]) + 3


def _readable(cell: object) -> str:
    """Text as it is; a number with commas and six digits, nothing for one that is not there."""
    if isinstance(cell, str | dict | Cell):  # a dict is the `where` of a tidy table
        return str(cell)
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
