import json
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench import ConfigError, DataError
from maebench.data.tokens import SPECIAL, Tokens, cut, shortened_to, trained

TEXTS = ("The cat sat on the mat.", "The dog sat on the log, and the cat on the dog.") * 20
KINDS = ("wordpiece", "bpe")


def tokens(kind="wordpiece", vocabulary=400, lowercase=True, texts=TEXTS):
    return Tokens(trained(kind, vocabulary, 8, lowercase, texts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_says_all_that_it_was_trained_on_again(kind):
    from tokenizers import Tokenizer

    found = tokens(kind)
    plain = Tokenizer.from_str(found.json)
    for text, ids in zip(TEXTS[:2], found.ids(TEXTS[:2]), strict=True):
        said = plain.decode(ids.tolist()).replace(" ", "")
        assert said == text.lower().replace(" ", "")
    assert found.length == 8 and found.vocabulary <= 400
    assert [found.id_of(token) for token in SPECIAL] == [0, 1, 2, 3, 4] and found.mask_id == 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_the_same_tokenizer(kind):
    code = (
        "from maebench.data.tokens import trained; from pydoc_data.topics import topics; "
        f"print(trained({kind!r}, 900, 16, True, tuple(topics.values())[:30]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(found) == 1


def test_a_text_that_names_a_special_token_hides_nothing():
    (ids,) = tokens(texts=(*TEXTS, "[MASK]")).ids(["the [MASK] sat"])
    assert not set(ids.tolist()) & set(range(len(SPECIAL)))


def test_capital_letters_are_kept_where_asked_for():
    both = [tokens(lowercase=low).ids(["The the"])[0].tolist() for low in (True, False)]
    assert both[0][0] == both[0][1] and both[1][0] != both[1][-1]


def test_a_character_that_train_lacks_is_unknown_to_wordpiece():
    (ids,) = tokens().ids(["the \N{SNOWMAN}"])
    assert ids.tolist()[-1] == SPECIAL.index("[UNK]")


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_smaller_than_the_alphabet_is_refused_with_the_least(kind):
    with pytest.raises(ConfigError, match=r"^dataset.vocabulary: 12 tokens are fewer than") as told:
        tokens(kind, 12)
    least = int(str(told.value).split("give ")[1].split()[0])
    assert tokens(kind, least).vocabulary == least


def test_anybodys_tokenizer_is_taken_and_what_is_none_refused():
    assert Tokens(shortened_to(tokens().json, 5)).length == 5
    with pytest.raises(DataError, match=r"^tokenizer.json cannot be read: "):
        shortened_to("{}", 5)
    with pytest.raises(DataError, match=r"^tokenizer.json beside the run cannot be read: "):
        Tokens("no JSON").ids(["a"])
    with pytest.raises(DataError, match=r"has no token \[GONE\]"):
        tokens().id_of("[GONE]")


@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer"])
def test_a_pattern_that_would_search_for_years_is_one_line(part):
    content = json.loads(tokens().json)
    pattern = {"pattern": {"Regex": "(a+)+$"}}
    content[part] = {
        "pre_tokenizer": {"type": "Split", **pattern, "behavior": "Isolated", "invert": False},
        "normalizer": {"type": "Replace", **pattern, "content": "x"},
    }[part]
    bomb = Tokens(shortened_to(json.dumps(content), 8))
    assert bomb.ids(["the cat"])[0].size, "where it matches at once"
    with pytest.raises(DataError, match=r"^tokenizer.json fails at a text: .*retry-limit"):
        bomb.ids(["a" * 50 + "b"])


def test_who_stops_a_tokenizer_is_not_told_of_an_error(monkeypatch):
    from maebench.data import tokens as module

    class Stopping:
        def encode_batch(self, *_, **__):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_read", lambda json: (Stopping(), 8))
    with pytest.raises(KeyboardInterrupt):
        Tokens("{}").ids(["a"])


def arrays(sizes):
    start = np.cumsum([0, *sizes])
    return [np.arange(a, b) for a, b in pairwise(start)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 9), st.booleans())
def test_windows_hold_each_token_once_in_order_and_the_others_are_counted(sizes, length, join):
    texts = arrays(sizes)
    found = cut(texts, length, join)
    assert found.ids.shape == (len(found.start), length)
    assert found.ids.size + found.left == sum(sizes)
    assert found.short == sum(size < length for size in sizes)
    assert len(set(found.ids.ravel())) == found.ids.size
    owner = np.repeat(np.arange(len(texts)), sizes)
    texts_of = [set(owner[row]) for row in found.ids]
    for row, start, mine in zip(found.ids, found.start, texts_of, strict=True):
        assert row[0] == texts[start][0] or len(mine) == 1
        assert (np.diff(row) > 0).all() and (join or mine == {start})
        assert len(mine) == 1 or max(sizes[i] for i in mine) < length
    for i, mine in enumerate(texts_of):  # what begins in different texts has none in common
        for j in range(i):
            assert found.start[i] == found.start[j] or not mine & texts_of[j]


def test_many_texts_of_one_token_are_joined_in_a_time_that_grows_with_their_number():
    texts = [np.zeros(1, dtype=np.int64)] * 100_000
    start = time.process_time()
    assert len(cut(texts, 50_000, join=True).ids) == 2
    assert time.process_time() - start < 2
