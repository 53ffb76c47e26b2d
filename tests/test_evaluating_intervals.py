"""Intervals against exact coverage, simulation, normal theory, scipy and statsmodels."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from maebench.evaluating import intervals as stats
from maebench.evaluating.intervals import (
    Interval,
    bootstrap_interval,
    group_sums,
    indistinguishable,
    is_right_or_wrong,
    mean_interval,
    wilson,
)


def right(num_right, num_examples):
    return np.repeat([1.0, 0.0], [num_right, num_examples - num_right])


def nan_ends(found):
    return math.isnan(found.low) and math.isnan(found.high)


# --- right or wrong


def test_values_are_right_or_wrong_where_all_are_0_or_1():
    for values in ([0.0, 1.0], [1, 1], [True, False], [0.0]):
        assert is_right_or_wrong(np.array(values))
    for values in ([0.5], [0.0, 1.0, 2.0], [-1.0, 1.0], [1.0, np.nan]):
        assert not is_right_or_wrong(np.array(values))


@pytest.mark.parametrize(("num", "of"), [(0, 1), (1, 1), (20, 20), (0, 7), (93, 100), (331, 360)])
def test_a_share_has_wilsons_interval_of_statsmodels(num, of):
    found = mean_interval(right(num, of))
    assert found.value == num / of
    assert found.method == "Wilson"
    low, high = proportion_confint(num, of, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.low < found.high, "never without width"
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_20_of_20_is_not_surely_all():
    found = mean_interval(np.ones(20))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(20 / (20 + 1.96**2), abs=1e-5)  # n / (n + z^2)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_of_wrong_has_the_interval_of_right_turned_over(counts):
    num, of = counts
    found, turned = wilson(num, of), wilson(of - num, of)
    assert (found.low, found.high) == pytest.approx((1 - turned.high, 1 - turned.low), abs=1e-12)


# exact: the binomial enumerated; benchmarks/coverage.py prints the table
COVERAGE = {
    (0.5, 100): 0.943,
    (0.9, 100): 0.936,
    (0.99, 100): 0.921,
    (0.5, 360): 0.949,
    (0.9, 360): 0.957,
    (0.99, 360): 0.970,
}


@cache
def every_wilson(num):
    return [wilson(k, num) for k in range(num + 1)]


@pytest.mark.parametrize(("share", "num"), COVERAGE)
def test_wilsons_interval_covers_as_often_as_stated_exactly_and_simulated(share, num):
    found = every_wilson(num)
    covers = np.array([i.low <= share <= i.high for i in found])
    exact = float(binom.pmf(np.arange(num + 1), num, share) @ covers)
    assert exact == pytest.approx(COVERAGE[share, num], abs=5e-4)
    assert exact > 0.92
    times = 10_000
    drawn = (np.random.default_rng(0).random((times, num)) < share).sum(axis=1)
    error = math.sqrt(exact * (1 - exact) / times)
    assert covers[drawn].mean() == pytest.approx(exact, abs=3 * error)


# --- graded


def test_graded_intervals_hold_the_true_mean_in_95_of_100_repetitions(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 500)  # of which the coverage hardly depends
    samples = np.random.default_rng(0).gamma(4, 1 / 4, (300, 100))
    found = [mean_interval(sample) for sample in samples]
    covered = np.mean([i.low <= 1 <= i.high for i in found])
    # a percentile interval of 100 covers a little less than 95 %; 300 repetitions: +- 1.3 %
    assert 0.91 < covered < 0.975
    missed = [np.mean([i.low > 1 for i in found]), np.mean([i.high < 1 for i in found])]
    assert max(missed) < 0.06, "it misses to one side only"


def test_the_interval_is_that_of_normal_theory_for_many_examples():
    values = np.random.default_rng(1).random(4000)
    found, half = mean_interval(values), 1.96 * values.std(ddof=1) / math.sqrt(4000)
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(2).exponential(size=50)
    found = mean_interval(values)
    assert found.method == "bootstrap"
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.04 * width)
    # skewed to the right: so is the interval
    assert found.high - found.value > 1.02 * (found.value - found.low)


def test_the_same_values_have_the_same_interval_in_batches_of_any_size(monkeypatch):
    values, groups = np.random.default_rng(3).random(1000), np.arange(1000) // 4
    state = np.random.get_state()[1].copy()
    for extra in ((), (groups,)):
        monkeypatch.setattr(stats, "BATCH_NUMBERS", 4_000_000)
        first = mean_interval(values, *extra)
        assert mean_interval(values.copy(), *extra) == first
        monkeypatch.setattr(stats, "BATCH_NUMBERS", 1000 * 300)
        assert mean_interval(values, *extra).value == first.value
        assert mean_interval(values, *extra).low == pytest.approx(first.low, abs=3e-3)
    assert (np.random.get_state()[1] == state).all()


def test_graded_values_that_are_all_equal_have_no_width_and_one_value_no_interval():
    assert mean_interval(np.full(10, 0.25)) == Interval(0.25, 0.25, 0.25, "bootstrap")
    alone = mean_interval(np.array([0.5]))
    assert alone.value == 0.5
    assert nan_ends(alone)


# --- groups


def test_sums_and_sizes_of_groups_are_those_of_a_loop():
    values, groups = np.arange(12.0).reshape(2, 6), np.array([7, 3, 7, 9, 3, 7])
    sums, sizes = group_sums(values, groups)
    assert sums.tolist() == [[1 + 4, 0 + 2 + 5, 3], [7 + 10, 6 + 8 + 11, 9]]
    assert sizes.tolist() == [2, 3, 1]
    sums, sizes = group_sums(values)
    assert (sums == values).all()
    assert sizes.tolist() == [1] * 6


def test_groups_of_one_have_the_interval_without_groups():
    values = np.random.default_rng(4).random(300)
    found, plain = mean_interval(values, np.arange(300)), mean_interval(values)
    assert found.method == "bootstrap of groups"
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=2e-3)


def test_examples_that_are_copies_within_their_groups_count_once():
    few = right(40, 60)
    found = mean_interval(np.repeat(few, 25), np.repeat(np.arange(60), 25))
    alone = bootstrap_interval(few)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.02)
    assert found.high - found.low > 4 * (wilson(1000, 1500).high - wilson(1000, 1500).low)


def test_the_names_of_groups_and_the_order_of_examples_change_nothing():
    rng = np.random.default_rng(5)
    values, groups = rng.random(200), rng.integers(30, size=200)
    order = rng.permutation(200)
    found, other = mean_interval(values, groups), mean_interval(values[order], groups[order] + 9)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_groups_of_unequal_size_are_resampled_as_wholes_and_weighted_by_size():
    # large groups are better: the mean over examples is above that over groups
    sizes = np.arange(1, 41)
    values, groups = np.repeat(sizes / 40, sizes), np.repeat(np.arange(40), sizes)
    found = mean_interval(values, groups)
    draws = np.random.default_rng(6).integers(40, size=(4000, 40))
    ends = np.quantile((sizes**2 / 40)[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(ends, abs=0.01)


def test_groups_that_are_all_right_have_wilsons_interval_of_as_many_examples():
    groups = np.repeat(np.arange(20), 5)
    for share in (0.0, 1.0):
        found, alone = mean_interval(np.full(100, share), groups), wilson(int(20 * share), 20)
        assert (found.low, found.high) == (alone.low, alone.high)
        assert found.method == "Wilson of groups"
    assert mean_interval(np.full(100, 0.5), groups).low == 0.5


def test_a_single_group_has_no_interval():
    found = mean_interval(right(3, 9), np.zeros(9, dtype=int))
    assert found.value == pytest.approx(1 / 3)
    assert nan_ends(found)


# --- choices


def test_choices_are_told_apart_as_by_mcnemars_statistic():
    rng = np.random.default_rng(7)
    outcomes = rng.random((40, 143)) < np.linspace(0.7, 0.95, 40)[:, None]
    best = int(outcomes.sum(axis=1).argmax())
    expected = []
    for row in outcomes:
        won, lost = (outcomes[best] & ~row).sum(), (row & ~outcomes[best]).sum()
        table = [[0, won], [lost, 0]]
        differs = won + lost and mcnemar(table, exact=False, correction=False).pvalue < 0.05
        expected.append(not differs)
    found = indistinguishable(outcomes, best)
    assert found.tolist() == expected
    assert found[best]
    assert 1 < found.sum() < 40
    assert (indistinguishable(outcomes.astype(np.float32), best) == found).all()


def test_graded_choices_that_do_not_differ_are_told_apart_in_5_of_100():
    rng = np.random.default_rng(8)
    outcomes = rng.exponential(size=(2000, 200))
    told = [not indistinguishable(pair, 0)[1] for pair in outcomes.reshape(1000, 2, 200)]
    assert np.mean(told) == pytest.approx(0.05, abs=0.021)  # three Monte Carlo errors


def test_a_choice_that_agrees_on_every_image_is_never_told_apart():
    assert indistinguishable(np.ones((3, 10)), 1).all()
