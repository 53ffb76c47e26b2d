"""Pairs and groups of arms, and whether evaluations agree: against definitions and scipy."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, ttest_rel

from maebench.analysis.arms import agreement, disagreements, groups_of, pairwise_p
from maebench.analysis.seeds import over_seeds

FEW = settings(max_examples=40, deadline=None)


@st.composite
def matrices(draw):
    """Symmetric p-values of up to eight arms, some missing."""
    num = draw(st.integers(1, 8))
    values = st.sampled_from([0.001, 0.05, 0.06, 0.5, 1.0, math.nan])
    matrix = np.ones((num, num))
    for a, b in combinations(range(num), 2):
        matrix[a, b] = matrix[b, a] = draw(values)
    return matrix


def test_pairs_have_scipys_paired_t_test_times_holms_step():
    scores = np.random.default_rng(0).normal(size=(3, 5)) + np.array([[0.0], [0.5], [3.0]])
    found = pairwise_p(scores)
    plain = {(a, b): ttest_rel(scores[a], scores[b]).pvalue for a, b in combinations(range(3), 2)}
    steps, highest = sorted(plain, key=plain.get), 0.0
    for left, (a, b) in zip((3, 2, 1), steps, strict=True):
        highest = max(highest, left * plain[a, b])
        assert found[a, b] == found[b, a] == pytest.approx(min(1, highest))
    assert (np.diag(found) == 1).all()


def test_pairs_without_a_p_value_stay_without_and_count_in_the_family():
    scores = np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.5, 0.9, 0.6]])
    found = pairwise_p(scores)
    assert math.isnan(found[0, 1]), "a tenth above for every seed"
    assert found[0, 2] == pytest.approx(3 * ttest_rel(scores[0], scores[2]).pvalue)
    assert np.isnan(pairwise_p(scores[:, :1])[0, 1]), "one seed"
    assert pairwise_p(scores[:1]).tolist() == [[1.0]]


@pytest.mark.slow
@FEW
@given(matrices())
def test_no_pair_of_a_group_is_told_apart_and_every_arm_is_in_a_group(matrix):
    groups = groups_of(matrix)
    for group in groups:
        assert not any(matrix[a, b] <= 0.05 for a, b in combinations(group, 2))
        others = set(range(len(matrix))) - set(group)
        assert all(any(matrix[a, b] <= 0.05 for b in group) for a in others), "it could grow"
    assert {arm for group in groups for arm in group} == set(range(len(matrix)))
    # each pair that is not told apart is together somewhere
    together = {pair for group in groups for pair in combinations(group, 2)}
    pairs = combinations(range(len(matrix)), 2)
    assert together == {(a, b) for a, b in pairs if not matrix[a, b] <= 0.05}
    assert groups == sorted(set(groups))


@FEW
@given(matrices(), st.randoms())
def test_the_order_of_arms_does_not_change_their_groups(matrix, random):
    order = list(range(len(matrix)))
    random.shuffle(order)
    mixed = groups_of(matrix[np.ix_(order, order)])
    assert sorted(tuple(sorted(order[i] for i in group)) for group in mixed) == groups_of(matrix)


def test_groups_need_not_be_neighbours():
    # the middle one differs from the first, the last from none
    matrix = np.array([[1.0, 0.01, 0.6], [0.01, 1.0, 0.3], [0.6, 0.3, 1.0]])
    assert groups_of(matrix) == [(0, 2), (1, 2)]
    assert groups_of(matrix, level=0.001) == [(0, 1, 2)]


def test_agreement_is_kendalls_tau_of_scipy_with_ties_and_gaps():
    means = pd.DataFrame(
        {
            "knn": [0.5, 0.6, 0.6, 0.8],
            "probe": [0.7, 0.9, 0.8, 0.95],
            "psnr": [20.0, 18.0, 17.0, math.nan],
            "flat": [1.0, 1.0, 1.0, 1.0],
        },
        index=["a", "b", "c", "d"],
    )
    found = agreement(means)
    for a, b in combinations(means.columns, 2):
        both = means[[a, b]].dropna()
        expected = kendalltau(both[a], both[b]).statistic
        assert found.loc[a, b] == found.loc[b, a] or math.isnan(expected)
        assert found.loc[a, b] == pytest.approx(expected, nan_ok=True)
    assert found.loc["knn", "probe"] > 0
    assert disagreements(found) == [
        ("knn", "psnr", pytest.approx(found.loc["knn", "psnr"])),
        ("probe", "psnr", pytest.approx(found.loc["probe", "psnr"])),
    ]


def test_of_two_arms_nothing_is_said():
    found = agreement(pd.DataFrame({"knn": [0.5, 0.6], "probe": [0.6, 0.5]}))
    assert math.isnan(found.loc["knn", "probe"])
    assert disagreements(found) == []


def test_a_pair_is_compared_over_the_seeds_that_both_have():
    scores = np.array([[1.0, 2.0, 3.0, np.nan], [2.5, 3.0, 4.2, 9.0], [np.nan] * 4])
    found = pairwise_p(scores)
    assert found[0, 1] == pytest.approx(min(1, 3 * over_seeds(scores[0, :3] - scores[1, :3]).p))
    assert np.isnan(found[2, :2]).all(), "nothing in common has no p-value, and counts"
