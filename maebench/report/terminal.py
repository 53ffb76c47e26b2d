"""The table as a person at a terminal reads it."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

WIDE = 200  # columns where the output is no terminal: nothing is cut off


def console() -> Console:
    """Standard output, wide where it is a file or a pipe."""
    # a name with [brackets] is a name and no markup
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=WIDE)


def print_table(table: pd.DataFrame) -> None:
    """Prints a table of texts."""
    shown = Table()
    for name in table.columns:
        shown.add_column(str(name), overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(_readable(cell) for cell in row))
    console().print(shown)


def _readable(cell: object) -> str:
    """Text as it is; a number with commas and six digits, nothing for one that is not there."""
    if isinstance(cell, str):
        return cell
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
