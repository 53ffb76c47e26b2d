from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from pydantic import Field, PositiveInt

from maebench import DataError, Request
from maebench.data.text import FEWEST, Corpus, TextDataset, divided
from maebench.data.tokens import KEPT, Tokens
from maebench.testing import DatasetContract

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


def document(number: int, words: int = 12) -> str:
    """A text that no other has: its number of three digits stands beside each word."""
    return " ".join(f"{WORDS[(number + i) % 8]} {100 + number}" for i in range(words // 2))


def documents(first: int, count: int, words: int = 12) -> list[str]:
    return [document(first + i, words) for i in range(count)]


class Made(TextDataset):
    """Two classes of made-up documents."""

    name: ClassVar[str] = "made"
    corpus: ClassVar[Corpus] = Corpus(
        {"a": documents(0, 30), "b": [*documents(100, 20), *documents(150, 20, 4)]}
    )
    length: PositiveInt = Field(default=8, description="tokens of a window", examples=[4])
    vocabulary: PositiveInt = Field(default=300, description="tokens", examples=[200])

    def read(self, request: Request) -> Corpus:
        return self.corpus


class TestContractOfText(DatasetContract):
    component = Made


def load(corpus: Corpus | None = None, split: str = "train", kept: Mapping[str, str] = {}, **how):
    cls = type("Other", (Made,), {"corpus": corpus, "name": "other"}) if corpus else Made
    return cls(**how).load(Request(split, kept=kept))


def texts_of(rows) -> list[str]:
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(rows.info.kept[KEPT])
    return [made.decode(ids) for ids in rows.values.tolist()]


def numbers_in(rows) -> set[str]:
    """The numbers of the documents that windows hold words of."""
    words = {word for text in texts_of(rows) for word in text.split()}
    return {word for word in words if word.isdigit() and len(word) == 3}  # others are cut


def test_every_window_has_exactly_as_many_tokens_and_there_is_no_padding():
    for split in ("train", "test"):
        rows = load(split=split)
        assert rows.values.shape[1] == 8 and rows.values.dtype == torch.int64
        assert int(rows.values.min()) > 4  # no special token
        assert set(rows.info.labels.tolist()) == {0, 1}
        assert rows.info.class_names == ("a", "b")


def test_no_document_is_in_train_and_in_test():
    train, test = (numbers_in(load(split=split)) for split in ("train", "test"))
    assert train and test and not train & test


def test_the_tokenizer_is_trained_on_train_alone():
    corpus = Corpus({"a": documents(0, 9)}, {"a": ["omega " * 40]})
    assert "omega" not in load(corpus).info.kept[KEPT]
    assert "alpha" in load(corpus).info.kept[KEPT]


def test_windows_of_one_document_belong_together():
    rows = load(Corpus({"a": documents(0, 20, words=40), "b": documents(50, 20, words=40)}))
    groups, labels = rows.info.groups, rows.info.labels
    assert len(groups.unique()) > 10
    for group in groups.unique():
        assert len(labels[groups == group].unique()) == 1


@dataclass
class Said:
    """What is said of a split, by its key."""

    count: int
    text: str


def said(rows) -> dict[str, Said]:
    return {r.what: Said(r.count, r.text) for r in rows.info.remarks}


def test_short_documents_are_joined_within_their_class_or_left_out_and_counted():
    corpus = Corpus({"a": documents(0, 40, 4), "b": documents(60, 40, 30)})
    joined, apart = load(corpus, length=10), load(corpus, length=10, join=False)
    short = said(joined)["short documents"]
    assert short.count == 32
    assert short.text.endswith("shorter than 10 tokens, and were joined with others of their class")
    with pytest.raises(KeyError):  # a class of short documents alone has no window of its own
        said(apart)["short documents"]
    assert said(apart)["short classes"].count == 1 and apart.info.class_names == ("b",)
    assert joined.info.class_names == ("a", "b")


def test_tokens_that_fill_no_window_are_counted():
    rows = load(length=7)
    left = said(rows)["left over"]
    from_all = sum(map(len, Tokens(rows.info.kept[KEPT]).ids(divided(Made.corpus)[0]["a"])))
    from_all += sum(map(len, Tokens(rows.info.kept[KEPT]).ids(divided(Made.corpus)[0]["b"])))
    assert left.count == from_all - rows.values.numel()


def test_classes_too_short_for_a_few_windows_are_left_out_and_counted_by_name():
    corpus = Corpus({**Made.corpus.train, "c": ["one two"], "d": documents(200, 5, 2)})
    rows = load(corpus)
    gone = next(r for r in rows.info.remarks if r.what == "short classes")
    assert gone.examples == ("c", "d") and rows.info.class_names == ("a", "b")
    assert gone.text.startswith("2 of 4 classes are too short for 4 windows of 8 tokens in train")
    assert load(corpus, split="test").info.class_names == ("a", "b")


def test_a_few_long_documents_are_divided_by_paragraphs_lines_or_sentences():
    for separator in ("\n\n", "\n", ". "):
        corpus = Corpus({"a": [separator.join(documents(0, 30))], "b": documents(100, 20)})
        train, test, small = divided(corpus)
        assert not small and len(train["a"]) == 24 and len(test["a"]) == 6
        assert not set(train["a"]) & set(test["a"])


def test_a_document_that_is_there_twice_is_train_in_every_class():
    same = documents(200, 10)
    train, test, _ = divided(Corpus({"a": [*documents(0, 20), *same], "b": [*same, *same[:3]]}))
    assert not set(test["a"]) & set(same) and set(same) <= set(train["a"])
    assert "b" not in train  # nothing of it is there once


def test_a_corpus_may_say_itself_what_test_is():
    corpus = Corpus({"a": documents(0, 30)}, {"a": documents(500, 10)})
    assert numbers_in(load(corpus, split="test")) <= set(map(str, range(600, 610)))
    with pytest.raises(DataError, match="^test has classes that train lacks: z$"):
        divided(Corpus({"a": ["x"]}, {"z": ["y"]}))


def test_without_classes_there_are_no_labels():
    rows = load(Corpus({"": documents(0, 30)}))
    assert rows.info.labels is None and rows.info.class_names == ()
    assert rows.info.inputs.num_classes == 0


def test_windows_longer_than_any_class_are_refused_with_the_longest():
    with pytest.raises(DataError) as told:
        load(length=500)
    text = str(told.value)
    assert text.startswith("dataset.length: windows of 500 tokens are too long for made: a class, ")
    assert f"needs {FEWEST[0]} of them in train and {FEWEST[1]} in test" in text
    assert text.endswith(" tokens") and "\n" not in text


def test_classes_of_which_none_can_be_divided_are_refused_with_the_reason():
    for few in (["alpha beta"] * 9, ["one. two", "three"]):
        with pytest.raises(DataError, match="^dataset other: no class can be divided: of its doc"):
            load(Corpus({"a": few, "b": few}))


def test_characters_that_train_lacks_are_counted():
    corpus = Corpus({"a": documents(0, 30)}, {"a": ["alpha \N{SNOWMAN} " * 20]})
    assert said(load(corpus, split="test"))["unknown tokens"].count == 20


def test_another_text_is_read_with_the_tokenizer_and_the_length_that_a_run_has_kept():
    kept = load(length=6).info.kept
    other = load(Corpus({"a": documents(700, 30)}), kept=kept)
    assert other.info.kept[KEPT] == kept[KEPT] and other.values.shape[1] == 6


def test_what_else_says_which_text_it_is_counts_in_the_fingerprint():
    one, two = (
        load(Corpus(Made.corpus.train, source={"version": version})) for version in ("1", "2")
    )
    assert torch.equal(one.values, two.values) and one.info.fingerprint != two.info.fingerprint
    assert one.info.kept["version"] == "1"
