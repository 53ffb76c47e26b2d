"""A picture of hidden tokens: what stands there, and what the model guesses.

B windows, L tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from maebench import Mask, Model

TOKENIZER = "tokenizer.json"  # as text data sets keep it beside a run
SHOWN = 8  # windows
WIDTH, MARGIN = 10.0, 0.01  # inches; share of it
SIZE = 8  # points
LINE = 2 * SIZE / 72  # inches from line to line
# characters of a line: of DejaVu Sans Mono, which comes with matplotlib, one is .602 of its size
COLUMNS = int(WIDTH * (1 - 2 * MARGIN) / (0.602 * SIZE / 72))
COLOURS = {"seen": "0.35", "right": "tab:green", "wrong": "tab:red"}
Piece = tuple[str, str]  # a text, and whether it was seen, or guessed right or wrong


def examples(model: Model, ids_BL: Tensor, mask: Mask, guess_BL: Tensor) -> None:
    """Writes a few windows with their hidden tokens in brackets as one PNG.

    Nothing is written of ids that no tokenizer makes text of.
    """
    kept = model.images("test").info.kept
    if TOKENIZER not in kept:
        return
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(kept[TOKENIZER])
    rows = (ids_BL[:SHOWN].tolist(), guess_BL[:SHOWN].tolist(), mask.hidden[:SHOWN].tolist())
    windows = [list(lines(pieces(made, *row))) for row in zip(*rows, strict=True)]
    high = sum(len(window) + 1 for window in windows)
    figure = Figure(figsize=(WIDTH, LINE * (high + 2)))
    axes = figure.add_axes((MARGIN, MARGIN, 1 - 2 * MARGIN, 1 - 2 * MARGIN))
    axes.set(xlim=(0, COLUMNS), ylim=(high + 1.5, -0.5))
    axes.axis("off")
    title = "hidden tokens in brackets; a wrong guess stands before what is there"
    style: dict[str, Any] = {"size": SIZE, "family": "DejaVu Sans Mono", "parse_math": False}
    axes.text(0, 0, title, weight="bold", **style)
    row = 1.5
    for window in windows:
        for line in window:
            column = 0
            for text, how in line:
                axes.text(column, row, text, color=COLOURS[how], **style)
                column += len(text)
            row += 1
        row += 1
    model.picture("reconstruction", figure)


def pieces(
    tokenizer: Any, ids: Sequence[int], guess: Sequence[int], hidden: Sequence[bool]
) -> Iterator[Piece]:
    """The texts of a window's tokens, of hidden ones the guess and the truth."""
    for there, guessed, is_hidden in zip(ids, guess, hidden, strict=True):
        gap, truth = text_of(tokenizer, there)
        if not is_hidden:
            yield gap + truth, "seen"
        elif there == guessed:
            yield f"{gap}[{truth}]", "right"
        else:
            yield f"{gap}[{text_of(tokenizer, guessed)[1]}|{truth}]", "wrong"


def text_of(tokenizer: Any, token: int) -> tuple[str, str]:
    """What stands before a token, a space or nothing, and its text on one line.

    WordPiece marks what goes on inside a word by ##, BPE what begins one by a space.
    """
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    mark: str = tokenizer.id_to_token(token)
    if mark.startswith("##"):
        return "", mark[2:]
    of_bytes = type(tokenizer.decoder).__name__ == "ByteLevel"
    starts = mark.startswith("\u0120") or not of_bytes  # Ġ: a space among BPE's bytes
    return " " * starts, " ".join(text.split()) or "\u2423"  # a mark for blanks


def lines(found: Iterator[Piece]) -> Iterator[list[Piece]]:
    """The pieces on lines of at most COLUMNS characters, no piece cut."""
    line: list[Piece] = []
    for text, how in found:
        if line and sum(len(piece) for piece, _ in line) + len(text) > COLUMNS:
            yield line
            line = []
        line.append((text if line else text.lstrip(), how))
    yield line
