import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench.masking.mask import hide
from maebench_evals.hidden_tokens import UNSEEN, Neighbours

V = 6
# 0 1 2 0 1 2 ...: each token says which is before and after it
ROUND = (torch.arange(40)[:, None] + torch.arange(9)) % 3


def mask_of(hidden, count=1, length=9):
    scores = torch.zeros(count, length)
    scores[:, hidden] = 1
    return hide(scores, len(hidden), (1, length))


def test_the_unigram_is_the_share_of_each_token_in_train():
    ids = torch.tensor([[0, 0, 0, 1]])
    nats, best = Neighbours.of(ids, V).guess(ids, mask_of([3], length=4), "none")
    assert nats.item() == pytest.approx(-math.log((1 + UNSEEN) / (4 + V * UNSEEN)))
    assert best.item() == 0


@pytest.mark.parametrize("context", ["left", "right", "both"])
def test_a_seen_neighbour_says_which_token_is_hidden(context):
    known = Neighbours.of(ROUND, V)
    nats, best = known.guess(ROUND[:1], mask_of([4]), context)
    assert best.item() == ROUND[0, 4] and nats.item() < 0.3
    unigram, _ = known.guess(ROUND[:1], mask_of([4]), "none")
    assert nats.item() < unigram.item() / 3


def test_a_hidden_neighbour_or_the_windows_end_says_nothing():
    known = Neighbours.of(ROUND, V)
    unigram, _ = known.guess(ROUND[:1], mask_of([3, 4]), "none")
    left, _ = known.guess(ROUND[:1], mask_of([3, 4]), "left")
    assert left[0, 0] < unigram[0, 0] and left[0, 1].item() == pytest.approx(unigram[0, 1].item())
    first, _ = known.guess(ROUND[:1], mask_of([0]), "left")
    alone, _ = known.guess(ROUND[:1], mask_of([0]), "none")
    assert first.item() == pytest.approx(alone.item())


def test_what_is_hidden_changes_nothing_of_what_is_guessed():
    known, mask = Neighbours.of(ROUND, V), mask_of([2, 5])
    other = torch.where(mask.hidden, 5, ROUND[:1])
    assert torch.equal(*(known.guess(ids, mask, "both")[1] for ids in (ROUND[:1], other)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["none", "left", "right", "both"]))
def test_the_shares_of_all_tokens_sum_to_one(seed, context):
    generator = torch.Generator().manual_seed(seed)
    train = torch.randint(0, V, (30, 9), generator=generator)
    known = Neighbours.of(train, V)
    mask = hide(torch.rand(1, 9, generator=generator), 3, (1, 9))
    total = torch.zeros(1, 3, dtype=torch.float64)
    for token in range(V):
        total += (-known.guess(torch.where(mask.hidden, token, train[:1]), mask, context)[0]).exp()
    assert torch.allclose(total, torch.ones_like(total))


def test_both_neighbours_are_taken_as_independent_given_the_token():
    train = torch.randint(0, V, (50, 9), generator=torch.Generator().manual_seed(0))
    known, ids = Neighbours.of(train, V), train[:1]
    mask = mask_of([4])
    share = known.logs.exp()
    after = torch.from_numpy(known.after.toarray())
    given = [(row + share) / (row.sum() + 1) for row in (after[ids[0, 3]], after[:, ids[0, 5]])]
    wanted = given[0] * given[1] / share
    nats, _ = known.guess(ids, mask, "both")
    assert nats.item() == pytest.approx(-(wanted / wanted.sum()).log()[ids[0, 4]].item())
