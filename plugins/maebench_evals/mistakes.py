"""Mistakes in text, in five severities: typing errors, dropped words, swapped words.

A window of token ids is decoded, its words are changed, and it is encoded by the same tokenizer; a
window in which no word is changed stays as it is. Tokens inside a word at its beginning are kept,
tokens that the tokenizer does not know are spelt out. What is then longer than a window is cut off;
what is shorter goes on with its own beginning, for what came next in the text is not at hand.
Shares of words are our own: there is no standard of five severities for text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maebench import Draws, MaebenchError

TOKENIZER = "tokenizer.json"  # of what a data set keeps beside a run
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the words that are changed, by severity
CONTINUES = "##"  # how WordPiece marks a token inside a word
# each key's neighbours to the left and right on an English keyboard
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
BESIDE = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in KEYS for i, key in enumerate(row)
}
Mistake = Callable[[list[str], float, Sequence[Sequence[float]]], list[str]]


def typing(words: list[str], share: float, u: Sequence[Sequence[float]]) -> list[str]:
    """In some words one letter is left out, doubled, swapped with the next, or the key beside it.

    Natural mistakes are of these kinds: Belinkov and Bisk 2018, arXiv 1711.02173, section 3.
    """
    return [
        _mistyped(word, kind, place) if chosen < share else word
        for word, (chosen, kind, place) in zip(words, u, strict=False)
    ]


def _mistyped(word: str, kind: float, place: float) -> str:
    at = min(int(place * len(word)), len(word) - 1)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    which = int(kind * 4)
    if which == 0 and len(word) > 1:
        return before + after
    if which == 1 and after:
        return before + after[0] + letter + after[1:]
    keys = BESIDE.get(letter.lower(), "")
    if which == 2 and keys:
        return before + keys[int(kind * 4000) % len(keys)] + after
    return before + letter + letter + after


def dropped(words: list[str], share: float, u: Sequence[Sequence[float]]) -> list[str]:
    """Some words are left out, never all."""
    left = [word for word, (chosen, _, _) in zip(words, u, strict=False) if chosen >= share]
    return left or words[:1]


def swapped(words: list[str], share: float, u: Sequence[Sequence[float]]) -> list[str]:
    """Some words change places with the next; half as many as are to be moved."""
    found, place = list(words), 0
    while place + 1 < len(found):
        if u[place][0] < share / 2:
            found[place : place + 2] = found[place + 1], found[place]
            place += 1
        place += 1
    return found


OF_TEXT: Mapping[str, Mistake] = {
    "typing-errors": typing,
    "dropped-words": dropped,
    "swapped-words": swapped,
}


def reader(kept: Mapping[str, str]) -> Any:
    """The tokenizer of windows, which cuts nothing off.

    Raises:
        MaebenchError: the data set keeps none.
    """
    from tokenizers import Tokenizer

    if TOKENIZER not in kept:
        raise MaebenchError(f"the data set keeps no {TOKENIZER}: its words cannot be read")
    made = Tokenizer.from_str(kept[TOKENIZER])
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True  # a text that says [MASK] hides nothing
    return made


def changed(
    ids_BL: Tensor, tokenizer: Any, mistake: Mistake, severity: int, draws: Draws
) -> Tensor:
    """Windows with mistakes, int64 (B, L)."""
    B, L = ids_BL.shape
    # more words than tokens there cannot be
    numbers = draws.uniform(L, 3).tolist()
    starts = [inside(ids, tokenizer) for ids in ids_BL.tolist()]
    rests = [ids[start:] for ids, start in zip(ids_BL.tolist(), starts, strict=True)]
    texts = tokenizer.decode_batch(rests, skip_special_tokens=False)
    found = []
    for before, start, text, u in zip(ids_BL, starts, texts, numbers, strict=True):
        words = text.split()[:L]
        made = mistake(words, SHARES[severity - 1], u) if words else words
        if made == words:
            found.append(before)
            continue
        after = tokenizer.encode(" ".join(made), add_special_tokens=False).ids
        ids = torch.cat([before[:start], torch.tensor(after, dtype=torch.int64)])
        found.append(ids.repeat(-(-L // len(ids)))[:L])
    return torch.stack(found).view(B, L)


def inside(ids: list[int], tokenizer: Any) -> int:
    """How many tokens at the beginning of a window go on with a word that is not in it."""
    tokens = map(tokenizer.id_to_token, ids)
    return sum(1 for _ in itertools.takewhile(lambda t: str(t).startswith(CONTINUES), tokens))
