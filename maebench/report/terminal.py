"""The table as a person at a terminal reads it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from maebench.outputs import Cell

WIDE = 200  # columns where the output is no terminal: nothing is cut off
LEAST = 3  # columns beside the index, however long its texts are
NARROW = 12  # characters of a line of text that can still be read as one
FRAME = 3  # characters of a column beside its content: a space on both sides and a line
# Where text may be broken: after a space, or after -, /, _, : or = but not in -0.5 or 1e-05.
_BREAKS = re.compile(r"(?<= )|(?<=\w[-/_:=])(?<!\de-)")


def console() -> Console:
    """Standard output, wide where it is a file or a pipe."""
    # a name with [brackets] is a name and no markup
    width = None if sys.stdout.isatty() else WIDE
    return Console(highlight=False, markup=False, width=width)


def say(text: str, style: str | None = None, whole: bool = False) -> None:
    """Prints a line, which a terminal gets broken between words unless it is to be copied whole."""
    console().print(text, style=style, soft_wrap=whole or not sys.stdout.isatty())


def print_table(table: pd.DataFrame) -> None:
    """Prints a table; where the terminal is too narrow for it, row by row."""
    out = console()
    heads = [str(name) for name in table.columns]
    rows = [[_readable(cell) for cell in row] for row in table.itertuples(index=False)]
    texts = [_is_text(table.iloc[:, i]) for i in range(len(heads))]
    widths = _widths(heads, rows, texts, out.width)
    if widths is None:
        for line in _row_by_row(heads, rows, texts, out.width):
            out.print(line, soft_wrap=True)
        return
    shown = Table()
    for head, width in zip(heads, widths, strict=True):
        shown.add_column(_folded(head, width, True), width=width)
    for row in rows:
        shown.add_row(*map(_folded, row, widths, texts))
    out.print(shown)


def _is_text(column: pd.Series) -> bool:
    """Whether a column holds names, which may be broken anywhere, and no numbers."""
    return not any(isinstance(cell, Cell | int | float) for cell in column)


def _widths(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[bool], width: int
) -> list[int] | None:
    """How wide each column is, so that no number is broken; None where they do not fit.

    All columns as they are where that fits, else the widest are narrowed first.
    """
    whole, least = [], []
    for i, (head, text) in enumerate(zip(heads, texts, strict=True)):
        cells = [row[i] for row in rows]
        lines = [line for cell in (head, *cells) for line in cell.split("\n")]
        whole.append(max(map(cell_len, lines)))
        pieces = [piece.strip() for cell in (head,) for piece in _BREAKS.split(cell)]
        words = [word for cell in cells for word in cell.split()]
        needed = max((cell_len(piece) for piece in (*pieces, *words)), default=0)
        least.append(min(needed, NARROW) if text else needed)
    space = width - FRAME * len(heads) - 1
    if sum(least) > space:
        return None
    while sum(whole) > space:
        widest = max((i for i in range(len(whole)) if whole[i] > least[i]), key=whole.__getitem__)
        whole[widest] -= 1
    return whole


def _folded(text: str, width: int, anywhere: bool) -> str:
    """Text in lines of a width, broken between words; `anywhere` in names too, at their dashes."""
    lines = []
    for line in text.split("\n"):
        pieces = _BREAKS.split(line) if anywhere else re.split(r"(?<= )", line)
        now = ""
        for piece in pieces:
            if now and cell_len(now + piece.rstrip()) > width:
                lines.append(now.rstrip())
                now = ""
            while anywhere and cell_len(now + piece.rstrip()) > width:  # a name without a dash
                cut = width
                while cell_len(piece[:cut]) > width:
                    cut -= 1
                lines.append(piece[: max(cut, 1)])
                piece = piece[max(cut, 1) :]
            now += piece
        lines.append(now.rstrip())
    return "\n".join(lines)


def _row_by_row(
    heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[bool], width: int
) -> Iterator[str]:
    """Each row as lines of `column  cell`, an empty line between two rows."""
    left = min(max(map(cell_len, heads), default=0), width // 2)
    for row in rows:
        for head, cell, text in zip(heads, row, texts, strict=True):
            if not cell:
                continue
            names = _folded(head, left, True).split("\n")
            values = _folded(cell, max(1, width - left - 2), text).split("\n")
            for i in range(max(len(names), len(values))):
                name, value = (part[i] if i < len(part) else "" for part in (names, values))
                yield f"{name}{' ' * (left - cell_len(name))}  {value}".rstrip()
        yield ""


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
