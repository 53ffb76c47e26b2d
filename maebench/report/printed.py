"""What a command prints, as values that can be kept, and how a terminal shows them.

Imports neither pandas nor torch: what a finished run printed is shown again without them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from maebench.errors import plain
from maebench.report.streams import raw

WIDE = 200  # columns where the output is no terminal: nothing is cut off
NARROW = 12  # characters of a line of text that can still be read as one
FRAME = 3  # characters of a column beside its content: a space on both sides and a line
# Where text may be broken: after a space, or after -, /, _, : or = but not in -0.5 or 1e-05.
_BREAKS = re.compile(r"(?<= )|(?<=\w[-/_:=])(?<!\de-)")


@dataclass(frozen=True)
class Line:
    """A line of text.

    Args:
        text: as it is printed.
        style: of rich, such as "bold".
        whole: whether it is to be copied whole, and so is not broken between words.
    """

    text: str
    style: str | None = None
    whole: bool = False

    def show(self) -> None:
        """Prints it; a terminal breaks it between words unless it is whole."""
        unbroken = self.whole or not sys.stdout.isatty()
        console().print(plain(self.text), style=self.style, soft_wrap=unbroken)


@dataclass(frozen=True)
class Sheet:
    """A table as text.

    Args:
        heads: of the columns.
        rows: a text for each column.
        texts: whether a column holds names, which may be broken anywhere, and no numbers.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[bool]

    def show(self) -> None:
        """Prints it; where the terminal is too narrow for it, row by row."""
        out = console()
        # before they are measured; a head may have several lines
        heads = ["\n".join(map(plain, head.split("\n"))) for head in self.heads]
        rows = [list(map(plain, row)) for row in self.rows]
        widths = _widths(heads, rows, self.texts, out.width)
        if widths is None:
            for line in _row_by_row(heads, rows, self.texts, out.width):
                out.print(line, soft_wrap=True)
            return
        shown = Table()
        for head, width in zip(heads, widths, strict=True):
            shown.add_column(_folded(head, width, True), width=width)
        for row in rows:
            shown.add_row(*map(_folded, row, widths, self.texts))
        out.print(shown)


class NamesAsText(Console):
    """A console to which a name is text: no markup, no emoji, no sequence that it would obey."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments, those of rich's own control codes as they are."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else plain(segment.text, lines=True)
            yield segment if shown == segment.text else segment._replace(text=shown)


def console() -> Console:
    """Standard output, wide where it is a file or a pipe."""
    width = None if sys.stdout.isatty() else WIDE
    return NamesAsText(file=raw(sys.stdout), width=width)


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
