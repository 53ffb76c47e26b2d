"""Text to token ids: a tokenizer trained on train alone, and windows of exactly L tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maebench.errors import ConfigError, DataError

# BERT's, in its order (arXiv 1810.04805); ids from 0, so that every vocabulary begins alike.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN, MASK = SPECIAL.index("[UNK]"), SPECIAL.index("[MASK]")
KEPT = "tokenizer.json"  # the file's name beside a run, as Hugging Face's libraries look for it
Kind = Literal["wordpiece", "bpe"]


@lru_cache(maxsize=4)  # both splits of a data set ask for the same
def trained(
    kind: Kind, vocabulary: int, length: int, lowercase: bool, texts: tuple[str, ...]
) -> str:
    """A tokenizer of the tokenizers library that was trained on some texts, as its JSON.

    WordPiece cuts as BERT does: accents and controls are cleaned, words and punctuation are apart.
    BPE is on bytes, as GPT-2's. How long windows are stands in it as its truncation.

    Args:
        kind: "wordpiece" or "bpe".
        vocabulary: the largest number of tokens, the five special ones among them.
        length: tokens of a window.
        lowercase: whether capital letters are made small first.
        texts: of train.

    Raises:
        ConfigError: the vocabulary has no room for the single characters.
    """
    made = (
        _wordpiece(vocabulary, lowercase, texts)
        if kind == "wordpiece"
        else _bpe(vocabulary, lowercase, texts)
    )
    if (least := made.get_vocab_size()) > vocabulary:
        raise ConfigError(
            f"dataset.vocabulary: {vocabulary} tokens are fewer than the alphabet of train, whose "
            f"characters alone are {least} with the {len(SPECIAL)} special ones; give {least} or "
            "more"
        )
    made.add_special_tokens(list(SPECIAL))
    made.enable_truncation(length)
    return str(made.to_str())


def _wordpiece(vocabulary: int, lowercase: bool, texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    found = {c for text in texts for c in normalizer.normalize_str(text) if not c.isspace()}
    alphabet = sorted(found)
    # The trainer numbers what goes on inside a word in an order that differs from process to
    # process, and breaks ties by these numbers: named as special tokens they have places.
    inside = [f"##{character}" for character in alphabet]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *inside],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made = Tokenizer(models.WordPiece(unk_token=SPECIAL[UNKNOWN]))
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(texts, trainer)
    plain = Tokenizer(models.WordPiece(vocab=made.get_vocab(), unk_token=SPECIAL[UNKNOWN]))
    plain.normalizer, plain.pre_tokenizer = made.normalizer, made.pre_tokenizer
    plain.decoder = decoders.WordPiece()
    return plain


def _bpe(vocabulary: int, lowercase: bool, texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
    small = [normalizers.Lowercase()] if lowercase else []
    made.normalizer = normalizers.Sequence([normalizers.NFC(), *small])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Has an error of the tokenizers library be one of data.

    It raises plain Exceptions, and where its Rust panics what is not even that.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{KEPT} {what}: {error}") from error


def shortened_to(json: str, length: int) -> str:
    """A tokenizer of anybody's, as JSON, with the length of windows in it.

    Raises:
        DataError: it is none of the tokenizers library.
    """
    from tokenizers import Tokenizer

    with _told("cannot be read"):
        made = Tokenizer.from_str(json)
    made.enable_truncation(length)
    made.no_padding()
    return str(made.to_str())


@dataclass(frozen=True)
class Tokens:
    """A tokenizer and the length of its windows.

    Args:
        json: as the tokenizers library writes it; the length is its truncation.
    """

    json: str

    @property
    def length(self) -> int:
        """Tokens of a window."""
        return _read(self.json)[1]

    @property
    def mask_id(self) -> int:
        """The id of [MASK]."""
        return self.id_of(SPECIAL[MASK])

    def id_of(self, token: str) -> int:
        """The id of a token.

        Raises:
            DataError: it has none.
        """
        found = _read(self.json)[0].token_to_id(token)
        if found is None:
            raise DataError(f"{KEPT} beside the run has no token {token}")
        return int(found)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return int(_read(self.json)[0].get_vocab_size())

    def ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """The token ids of each text, without special tokens.

        Raises:
            DataError: the tokenizer fails at one, such as by a pattern that would search for years.
        """
        made = _read(self.json)[0]
        with _told("fails at a text"):
            found = made.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(each.ids, dtype=np.int64) for each in found]


@lru_cache(maxsize=4)  # each class of a data set asks
def _read(json: str) -> tuple[Any, int]:
    """The tokenizer, which cuts nothing off, and the length of its windows.

    Raises:
        DataError: it is none of the tokenizers library, or does not say the length.
    """
    from tokenizers import Tokenizer

    with _told("beside the run cannot be read"):
        made = Tokenizer.from_str(json)
    if made.truncation is None:
        raise DataError(f"{KEPT} beside the run does not say how long windows are")
    length = int(made.truncation["max_length"])
    made.no_truncation()
    made.encode_special_tokens = True  # a text that says [MASK] hides nothing
    return made, length


@dataclass(frozen=True)
class Windows:
    """Windows that were cut out of some texts.

    Args:
        ids: int64 (N, L).
        start: the text in which each begins, int64 (N,); windows that begin in different texts
            have no text in common.
        short: how many texts are shorter than a window.
        left: tokens that were left over.
    """

    ids: NDArray[np.int64]
    start: NDArray[np.int64]
    short: int
    left: int


def cut(texts: Sequence[NDArray[np.int64]], length: int, join: bool) -> Windows:
    """Windows of exactly so many tokens.

    A text is cut from its beginning, and what it leaves over is left out. Shorter ones are joined
    until they fill a window, which then ends; the next begins with a text of its own.

    Args:
        texts: the token ids of each.
        length: L.
        join: whether short texts are joined; else they are left out.
    """
    found, start = [np.empty((0, length), dtype=np.int64)], list[int]()
    joined = list[NDArray[np.int64]]()
    first = waiting = 0
    for number, text in enumerate(texts):
        if len(text) >= length:
            count = len(text) // length
            found.append(text[: count * length].reshape(count, length))
            start += [number] * count
        elif join and len(text):  # no window begins in a text of nothing
            first = first if joined else number
            joined.append(text)
            waiting += len(text)
            if waiting >= length:
                found.append(np.concatenate(joined)[None, :length])
                start.append(first)
                joined, waiting = [], 0
    ids = np.concatenate(found)
    short = sum(len(text) < length for text in texts)
    return Windows(ids, np.array(start, dtype=np.int64), short, sum(map(len, texts)) - ids.size)
