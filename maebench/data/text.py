"""Text as a data set: documents in classes, divided into train and test, cut into windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from maebench.data.dataset import Dataset, Request
from maebench.data.rows import Rows, from_rows
from maebench.data.split_info import Remark, some_of
from maebench.data.tokens import KEPT, SPECIAL, UNKNOWN, Kind, Tokens, Windows, cut, trained
from maebench.encoders.inputs import TEXT
from maebench.errors import DataError
from maebench.rng import permutation

TEST_SHARE = 5  # one part in five of a class is test
FEWEST = (4, 1)  # windows of train and of test that a class has to have
SEPARATORS = ("\n\n", "\n", ". ")  # paragraphs, lines, sentences


@dataclass(frozen=True)
class Corpus:
    """Documents by class, in the order of the classes' names; "" where there are no classes.

    Args:
        train: the documents of each class.
        test: the same of test; None where a fifth of train is to be test.
        remarks: what was left out on the way.
        skipped: names of files that could not be read.
        source: what else says which text it is, such as the version of what it came with; it
            counts in the fingerprint and is kept beside a run.
    """

    train: Mapping[str, Sequence[str]]
    test: Mapping[str, Sequence[str]] | None = None
    remarks: tuple[Remark, ...] = ()
    skipped: tuple[str, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)


class TextDataset(Dataset):
    """Windows of token ids, all of exactly one length, out of documents that may have classes.

    A fifth of each class's documents is test where the data set does not say which; of a class
    with fewer than five a fifth of their paragraphs, lines or sentences; what is there twice is
    train. The tokenizer is trained on train alone, and no window holds text of both.
    """

    gives: ClassVar[str] = TEXT
    length: PositiveInt = Field(
        default=64, le=2**16, description="tokens of a window", examples=[16]
    )
    vocabulary: PositiveInt = Field(
        default=2048,
        le=2**20,
        description="largest number of tokens of the tokenizer",
        examples=[600],
    )
    tokenizer: Kind = Field(
        default="wordpiece",
        description="how words are cut: WordPiece as BERT's, or byte-level BPE as GPT-2's",
    )
    lowercase: bool = Field(default=True, description="whether capital letters are made small")
    join: bool = Field(
        default=True,
        description="whether documents shorter than a window are joined with others of their "
        "class; else they are left out",
    )

    def read(self, request: Request) -> Corpus:
        """The documents.

        Raises:
            DataError: files are missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} has no read(request)")

    def load(self, request: Request) -> Rows:
        """One split, its tokens by the tokenizer of the run that is to read it, or by its own."""
        corpus = self.read(request)
        train, test, small = divided(corpus)
        if not train:
            raise DataError(
                f"dataset {self.title}: no class can be divided: of its documents, or paragraphs, "
                f"lines or sentences where these are few, {TEST_SHARE} are needed, and one of them "
                "there once"
            )
        tokens = self._tokens(request, train)
        parts = self._cut(tokens, train), self._cut(tokens, test)
        chosen = [name for name in train if _enough(*(part[name] for part in parts))]
        if not chosen:
            raise DataError(self._too_short(tokens, train, test))
        gone = [*small, *(name for name in train if name not in chosen)]
        mine = parts[request.split == "test"]
        texts = sum(len((train, test)[request.split == "test"][name]) for name in chosen)
        remarks = [*corpus.remarks, *self._remarks(tokens, mine, chosen, gone, texts)]
        found = [mine[name] for name in chosen]
        sizes = [len(each.ids) for each in found]
        first = np.cumsum([0, *(each.start.max() + 1 for each in found)])
        labelled = "" not in train
        kept = {KEPT: tokens.json, **corpus.source}
        return from_rows(
            np.concatenate([each.ids for each in found]),
            np.arange(len(chosen)).repeat(sizes) if labelled else None,
            chosen if labelled else (),
            TEXT,
            vocabulary=tokens.vocabulary,
            mask_id=tokens.mask_id,
            class_id=tokens.id_of("[CLS]"),
            # windows of one document are alike: intervals and folds go by whole documents
            groups=np.concatenate([each.start + n for each, n in zip(found, first, strict=False)]),
            remarks=remarks,
            kept=kept,
            skipped=corpus.skipped,
        )

    def preset(self) -> dict[str, Any]:
        """BERT's objective and ratio on a small encoder: about two minutes on two cores."""
        return {
            "encoder": "text-nano",
            "objective": "bert",
            "ratio": 0.15,
            "budget": "steps=1200",
            "batch": 64,
            # of 1.6e-2 to 6.4e-2 the best on pydoc, of 8e-3 and this on fortunes and kjv: the
            # output's biases have to find the tokens' frequencies first
            "lr": 3.2e-2,
        }

    def _tokens(self, request: Request, train: Mapping[str, Sequence[str]]) -> Tokens:
        if KEPT in request.kept:
            return Tokens(request.kept[KEPT])
        texts = tuple(text for some in train.values() for text in some)
        return Tokens(trained(self.tokenizer, self.vocabulary, self.length, self.lowercase, texts))

    def _cut(self, tokens: Tokens, texts: Mapping[str, Sequence[str]]) -> dict[str, Windows]:
        length = tokens.length
        return {name: cut(tokens.ids(some), length, self.join) for name, some in texts.items()}

    def _too_short(
        self, tokens: Tokens, train: Mapping[str, Sequence[str]], test: Mapping[str, Sequence[str]]
    ) -> str:
        longest = max(
            (sum(map(len, tokens.ids(some))) for part in (train, test) for some in part.values()),
            default=0,
        )
        return (
            f"dataset.length: windows of {tokens.length} tokens are too long for {self.title}: a "
            f"class, or all of it, needs {FEWEST[0]} of them in train and {FEWEST[1]} in test, and "
            f"the longest part has {longest} tokens"
        )

    def _remarks(
        self,
        tokens: Tokens,
        mine: Mapping[str, Windows],
        chosen: Sequence[str],
        gone: Sequence[str],
        texts: int,
    ) -> list[Remark]:
        """What was joined, left out or not known, each with its count."""
        said = []
        windows = [mine[name] for name in chosen]
        if gone:
            text = (
                f"{len(gone)} of {len(gone) + len(chosen)} classes are too short for "
                f"{FEWEST[0]} windows of {tokens.length} tokens in train and {FEWEST[1]} in test, "
                f"and were left out"
            )
            said.append(Remark("short classes", len(gone), text, examples=tuple(gone)))
        if short := sum(each.short for each in windows):
            how = "joined with others of their class" if self.join else "left out"
            text = (
                f"{short:,} of {texts:,} documents are shorter than {tokens.length} tokens, and "
                f"were {how}"
            )
            said.append(Remark("short documents", short, text))
        if left := sum(each.left for each in windows):
            total = left + sum(each.ids.size for each in windows)
            text = f"{left:,} of {total:,} tokens fill no window, and were left out"
            said.append(Remark("left over", left, text))
        what = tokens.id_of(SPECIAL[UNKNOWN])
        if unknown := sum(int((each.ids == what).sum()) for each in windows):
            text = f"{unknown:,} tokens are not in the vocabulary of train"
            said.append(Remark("unknown tokens", unknown, text))
        return said


def _enough(train: Windows, test: Windows) -> bool:
    return all(len(part.ids) >= least for part, least in zip((train, test), FEWEST, strict=True))


Texts = dict[str, list[str]]


def divided(corpus: Corpus) -> tuple[Texts, Texts, list[str]]:
    """Train and test by class, and the classes that cannot be divided.

    Raises:
        DataError: test has a class that train lacks.
    """
    if corpus.test is not None:
        train, test = (
            {k: list(v) for k, v in part.items()} for part in (corpus.train, corpus.test)
        )
        if ("" in train) != ("" in test):
            raise DataError("one of train and test has labels, and the other has none")
        if gone := sorted(set(test) - set(train)):
            raise DataError(f"test has classes that train lacks: {some_of(gone)}")
        return train, {name: test.get(name, []) for name in train}, []
    train, test, small = {}, {}, []
    parts_of = {name: _parts(documents) for name, documents in corpus.train.items()}
    # what is there twice, in whichever classes, is never test: it would be in train too
    count = Counter(_words(part) for parts in parts_of.values() for part in parts)
    for name, parts in parts_of.items():
        order = permutation(len(parts), 0, f"text split/{name}").tolist()
        alone = [i for i in order if count[_words(parts[i])] == 1]
        if len(parts) < TEST_SHARE or not alone:
            small.append(name)
            continue
        held = set(alone[: max(1, round(len(parts) / TEST_SHARE))])
        train[name] = [part for i, part in enumerate(parts) if i not in held]
        test[name] = [part for i, part in enumerate(parts) if i in held]
    return train, test, small


def _words(text: str) -> str:
    """A text without its spaces and capitals, in which copies of it may differ."""
    return "".join(text.lower().split())


def _parts(documents: Sequence[str]) -> list[str]:
    """The documents, or where they are few their paragraphs, else lines, else sentences."""
    parts = list(documents)
    for separator in SEPARATORS:
        if len(parts) >= TEST_SHARE:
            break
        found = (part for document in documents for part in document.split(separator))
        parts = [part for part in found if part.strip()]
    return parts
