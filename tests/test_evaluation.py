"""The contract of evaluations: what a metric is, and how an entry of a grid is chosen on train."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import Choice, Metric, choose

SCORES = st.lists(st.sampled_from([0.1, 0.5, 0.8, 0.9]), min_size=1, max_size=15)


def test_a_metric_takes_keywords_alone():
    with pytest.raises(TypeError):
        Metric("share", "%")
    assert Metric(help="loss", higher_is_better=False).unit == ""


def test_accuracy_is_the_usual_metric():
    assert Metric.accuracy() == Metric(
        help="share of test images given their class", unit="%", low=0, high=1, main=True
    )
    other = Metric.accuracy("of five guesses", main=False, per_example=False)
    assert (other.help, other.main, other.per_example) == ("of five guesses", False, False)


@given(SCORES)
def test_of_equally_good_entries_the_middle_one_is_chosen(scores):
    choice = choose(scores)
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    assert choice.index == best[len(best) // 2]
    assert choice.edge == (len(scores) > 1 and choice.index in (0, len(scores) - 1))


@given(SCORES, st.data())
def test_of_a_grid_with_several_axes_an_edge_is_chosen_only_where_it_is_better(scores, data):
    edges = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    choice = choose(scores, edges)
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    assert choice.index in best
    assert choice.edge == edges[choice.index] == all(edges[i] for i in best)


def test_a_choice_marks_its_own_rows_alone():
    assert Choice(2, False).where(2) == {"chosen": True}
    assert Choice(2, True).where(2) == {"chosen": True, "edge": True}
    assert Choice(2, True).where(1) == {}


def test_a_grid_of_one_entry_has_no_edge():
    assert choose([0.5]) == Choice(0, False)
