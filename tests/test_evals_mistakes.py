"""Mistakes in text: how many words they touch, and that what is not touched stays as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from maebench import Draws, MaebenchError
from maebench.data.tokens import trained
from maebench_evals import mistakes
from maebench_evals.mistakes import OF_TEXT, SHARES

TEXT = (
    "the quick brown fox jumps over the lazy dog while seven wizards boil a pot of jam and "
    "nobody says why the harbour was closed before noon that day"
)
WORDS = TEXT.split()


def numbers(seed=0, count=200):
    return Draws(seed, "mistakes", torch.arange(1)).uniform(count, 3)[0].tolist()


def tokenizer(kind):
    texts = tuple(f"{TEXT} {n}" for n in range(50))
    return mistakes.reader({"tokenizer.json": trained(kind, 600, 16, True, texts)})


words = st.lists(st.text("abcdefgh'", min_size=1, max_size=9), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(words, st.sampled_from(sorted(OF_TEXT)), st.sampled_from(SHARES), st.integers(0, 99))
def test_any_words_become_words_and_nothing_appears_from_nowhere(given_words, name, share, seed):
    u = numbers(seed)
    before = list(given_words)
    found = OF_TEXT[name](given_words, share, u)
    assert given_words == before
    assert found and all(found)
    if name == "dropped-words":
        rest = iter(given_words)
        assert all(word in rest for word in found), "the others keep their order"
    if name == "swapped-words":
        assert sorted(found) == sorted(given_words)
    if name == "typing-errors":
        assert len(found) == len(given_words)
        for one, other in zip(given_words, found, strict=True):
            assert one == other or abs(len(one) - len(other)) <= 1


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", OF_TEXT)
def test_so_many_words_are_touched_as_the_share_says(name, share):
    many = [f"word{n}x" for n in range(4000)]
    u = numbers(1, 4000)
    found = OF_TEXT[name](many, share, u)
    if name == "dropped-words":
        touched = len(many) - len(found)
    else:
        touched = sum(a != b for a, b in zip(many, found, strict=True))
    # each swap moves two words, and one that was just moved is not moved on
    low = 0.8 if name == "swapped-words" else 0.9
    assert low * share - 0.01 <= touched / 4000 <= 1.1 * share + 0.01


def test_typing_errors_are_of_four_kinds():
    made = {mistakes._mistyped("dog", kind, 0.4) for kind in (0.1, 0.3, 0.5, 0.51, 0.9)}
    assert {"dg", "dgo", "doog"} <= made
    assert made & {"dig", "dpg"}
    assert mistakes._mistyped("a", 0.1, 0.0) == "aa", "a word of one letter is never lost"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
@pytest.mark.parametrize("name", OF_TEXT)
def test_windows_stay_windows_and_get_worse_with_severity(kind, name):
    reader = tokenizer(kind)
    L = 16
    ids = torch.tensor([reader.encode(TEXT, add_special_tokens=False).ids[:L]] * 40)

    def made(severity, start, end):
        draws = Draws(0, "mistakes", torch.arange(start, end))
        return mistakes.changed(ids[start:end], reader, OF_TEXT[name], severity, draws)

    changed = [made(severity, 0, 40) for severity in (1, 3, 5)]
    for found in changed:
        assert found.shape == ids.shape and found.dtype == torch.int64
        assert int(found.max()) < reader.get_vocab_size()
    shares = [float((found != ids).any(1).float().mean()) for found in changed]
    assert shares == sorted(shares) and shares[-1] > 0.9
    assert torch.equal(made(3, 3, 5), changed[1][3:5]), "what a window becomes is its own"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_window_in_which_no_word_is_touched_stays_as_it_is(kind):
    reader = tokenizer(kind)
    long = reader.encode(f"{TEXT} {TEXT}", add_special_tokens=False).ids
    ids = torch.tensor([long[start : start + 16] for start in range(0, 32)])
    draws = Draws(0, "mistakes", torch.arange(len(ids)))
    found = mistakes.changed(ids, reader, lambda words, share, u: words, 5, draws)
    assert torch.equal(found, ids)


def test_tokens_inside_a_word_at_the_beginning_stay_there():
    reader = tokenizer("wordpiece")
    cut = reader.token_to_id("##b")
    ids = torch.tensor([[cut, cut, *reader.encode(TEXT, add_special_tokens=False).ids[:14]]])
    draws = Draws(0, "m", torch.arange(1))
    found = mistakes.changed(ids, reader, lambda words, share, u: words[1:], 5, draws)
    assert found[0, :2].tolist() == [cut, cut]
    assert found[0, 2:12].tolist() == ids[0, 3:13].tolist()


def test_what_is_shorter_goes_on_with_its_own_beginning():
    reader = tokenizer("wordpiece")
    ids = torch.tensor([reader.encode(TEXT, add_special_tokens=False).ids[:16]])
    found = mistakes.changed(
        ids, reader, lambda words, share, u: words[:1], 5, Draws(0, "m", torch.arange(1))
    )
    assert found[0].tolist() == [reader.encode("the", add_special_tokens=False).ids[0]] * 16


def test_a_data_set_without_a_tokenizer_is_one_line():
    with pytest.raises(MaebenchError, match=r"keeps no tokenizer\.json"):
        mistakes.reader({})


def test_a_text_that_says_mask_hides_nothing():
    reader = tokenizer("wordpiece")
    plain = Tokenizer.from_str(trained("wordpiece", 600, 16, True, (TEXT,)))
    assert plain.token_to_id("[MASK]") not in reader.encode("[MASK]", add_special_tokens=False).ids
