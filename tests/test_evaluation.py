"""What an evaluation declares and chooses: metrics, and an entry of a grid."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import Choice, Metric, choose

SCORES = st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=9)


@given(SCORES)
def test_the_middle_of_the_best_is_chosen_and_the_ends_of_the_grid_are_edges(scores):
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    middle = best[len(best) // 2]
    assert choose(scores) == Choice(middle, len(scores) > 1 and middle in (0, len(scores) - 1))


@given(SCORES, st.data())
def test_of_equally_good_entries_one_off_the_edge_is_taken(scores, data):
    edges = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    found = choose(scores, edges)
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    inside = [i for i in best if not edges[i]]
    taken = inside or best
    assert found == Choice(taken[len(taken) // 2], not inside)


def test_a_better_entry_wins_on_the_edge_too():
    assert choose([0.5, 0.9, 0.9, 0.9, 0.1]) == Choice(2, False)
    assert choose([0.9, 0.5]) == Choice(0, True)
    assert choose([0.1, 0.5, 0.9], [True, False, True]) == Choice(2, True)


def test_a_grid_of_a_single_entry_has_no_edge():
    assert choose([0.3]) == Choice(0, False)


def test_the_chosen_entry_alone_is_marked_and_its_edge_beside_it():
    inside, edge = Choice(1, False), Choice(2, True)
    assert [inside.where(i) for i in range(3)] == [{}, {"chosen": True}, {}]
    assert [edge.where(i) for i in range(3)] == [{}, {}, {"chosen": True, "edge": True}]


def test_an_accuracy_is_a_share_of_right_answers_in_per_cent():
    assert Metric.accuracy() == Metric(
        help="share of test images given their class",
        **{"unit": "%", "higher_is_better": True, "low": 0, "high": 1},
        **{"per_example": True, "main": True, "guess": None},
    )
    other = Metric.accuracy("a part", main=False, per_example=False)
    changed = {"help": "a part", "main": False, "per_example": False}
    assert other == dataclasses.replace(Metric.accuracy(), **changed)


def test_the_meaning_of_a_metric_is_named_and_never_counted_off():
    with pytest.raises(TypeError, match="positional argument"):
        Metric("a share", "%", True)
