"""Differences are paired over test examples: known answers, exact coverage, invariants."""

from __future__ import annotations

import math
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial, norm, permutation_test, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels

from maebench.analysis import stats
from maebench.analysis.stats import (
    choice_interval,
    mcnemar,
    paired_difference,
    score_excess,
    sign_flip,
    tango,
)
from maebench.evaluating.intervals import Interval, mean_interval

FEW = settings(max_examples=25, deadline=None)
# only the first model right, only the second, all examples
PAIRS = st.integers(1, 500).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)).filter(
        lambda counts: counts[0] + counts[1] <= counts[2]
    )
)


def outcomes(mine, other, num):
    """Two models' outcomes, the rest right in both."""
    rest = num - mine - other
    return np.repeat([1.0, 0.0, 1.0], [mine, other, rest]), np.repeat(
        [0.0, 1.0, 1.0], [mine, other, rest]
    )


def difference(mine, theirs, groups=None):
    ids = np.arange(len(mine))
    return paired_difference(ids, mine, ids, theirs, groups)


# --- matching


def test_a_paired_difference_matches_images_by_their_ids():
    rng = np.random.default_rng(4)
    ids, mine = np.arange(200), rng.random(200)
    theirs = mine - 0.1 + 0.01 * rng.standard_normal(200)
    order = rng.permutation(200)
    found = paired_difference(ids, mine, ids[order], theirs[order])
    assert found == paired_difference(ids, mine, ids, theirs)
    assert isinstance(found, Interval)
    assert found.value == pytest.approx(0.1, abs=0.005)
    # what is common to both does not widen it
    assert found.high - found.low < 0.005 < mean_interval(mine).high - mean_interval(mine).low
    turned = paired_difference(ids, theirs, ids, mine)
    assert turned.value == -found.value
    assert turned.low == pytest.approx(-found.high, abs=5e-4)
    assert turned.p == found.p


@pytest.mark.parametrize("other", [np.arange(1, 11), np.arange(9), np.array([*range(9), 8])])
def test_different_images_cannot_be_paired(other):
    with pytest.raises(ValueError, match="not tested on the same images"):
        paired_difference(np.arange(10), np.ones(10), other, np.ones(len(other)))


def test_groups_are_matched_by_the_ids_of_the_first_model():
    rng = np.random.default_rng(5)
    ids, groups = rng.permutation(60), rng.integers(12, size=60)
    mine, theirs = rng.random(60), rng.random(60)
    order, other = np.argsort(ids), rng.permutation(60)
    found = paired_difference(ids, mine, ids[other], theirs[other], groups)
    sorted_first = paired_difference(
        ids[order], mine[order], ids[order], theirs[order], groups[order]
    )
    assert found == sorted_first
    assert (found.examples, found.num_groups) == (60, 12)


# --- right or wrong


@pytest.mark.parametrize(
    ("counts", "ends"),
    [
        # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33; as R's contingencytables
        ((6, 16, 161), (-0.1240, -0.0054)),
        ((1, 7, 21), (-0.517, -0.026)),
    ],
)
def test_the_score_interval_is_that_of_published_examples(counts, ends):
    found = tango(*counts)
    assert (found.low, found.high) == pytest.approx(ends, abs=6e-4 if counts[2] == 21 else 6e-5)


def test_the_score_interval_has_its_closed_form_where_models_agree_or_one_is_always_right():
    for n in (1, 20, 360, 100_000):
        z2 = 1.959964**2
        assert tango(0, 0, n).high == pytest.approx(z2 / (n + z2), abs=1e-9)
        assert tango(0, 0, n).low == -tango(0, 0, n).high
        assert tango(n, 0, n).low == pytest.approx((n - z2) / (n + z2), abs=1e-9)
        assert tango(n, 0, n).high == 1.0


@FEW
@given(PAIRS)
def test_the_ends_of_the_score_interval_are_where_the_score_test_rejects(counts):
    mine, other, n = counts
    found = tango(mine, other, n)
    assert -1 <= found.low <= found.value <= found.high <= 1
    for end, outward in ((found.low, -1), (found.high, 1)):
        if abs(end) < 1:
            # beside score_excess: the likelihood under p_mine - p_other = end, on a fine grid
            q = np.linspace(max(0, -end), (1 - end) / 2, 20_001)[1:-1]
            loss = -mine * np.log(q + end) - other * np.log(q)
            loss -= (n - mine - other) * np.log1p(-2 * q - end)
            q = q[loss.argmin()]
            z = (mine - other - n * end) / math.sqrt(n * (2 * q + end - end**2))
            assert abs(z) == pytest.approx(norm.ppf(0.975), abs=0.02)
            assert score_excess(end + 1e-5 * outward, mine, other, n) > 0
            assert score_excess(end - 1e-5 * outward, mine, other, n) < 0


@FEW
@given(PAIRS)
def test_turning_two_models_round_turns_the_score_interval(counts):
    mine, other, n = counts
    found, turned = tango(mine, other, n), tango(other, mine, n)
    assert (found.value, found.low, found.high) == (-turned.value, -turned.high, -turned.low)
    assert mcnemar(mine, other) == mcnemar(other, mine)


@FEW
@given(PAIRS)
def test_one_more_example_that_only_the_first_has_right_raises_the_interval(counts):
    mine, other, n = counts
    found, more = tango(mine, other, n + 1), tango(mine + 1, other, n + 1)
    assert more.low > found.low or more.low == found.low == -1
    assert more.high > found.high or more.high == found.high == 1


def joint(share, gap, correlation):
    """Probabilities that only the first, only the second, or neither alone is right."""
    other = share - gap
    both = share * other + correlation * math.sqrt(share * (1 - share) * other * (1 - other))
    return share - both, other - both, 1 - share - other + 2 * both


# exact: the trinomial enumerated, (share of the first model, difference, images);
# benchmarks/coverage.py prints the whole table
COVERAGE = {
    (0.5, 0.0, 100): 0.950,
    (0.9, 0.0, 100): 0.955,
    (0.99, 0.0, 100): 0.995,
    (0.5, 0.02, 100): 0.951,
    (0.9, 0.02, 100): 0.950,
    (0.99, 0.02, 100): 0.969,
    (0.5, 0.0, 360): 0.951,
    (0.9, 0.0, 360): 0.951,
    (0.99, 0.0, 360): 0.954,
    (0.5, 0.02, 360): 0.950,
    (0.9, 0.02, 360): 0.951,
    (0.99, 0.02, 360): 0.947,
}


@pytest.mark.parametrize(("share", "gap", "num"), COVERAGE)
def test_the_score_interval_covers_as_often_as_stated_exactly_and_simulated(share, gap, num):
    p = joint(share, gap, 0.3)
    counts = np.array([(b, c) for b in range(num + 1) for c in range(num + 1 - b)]).T
    covers = score_excess(gap, *counts, num) <= 0
    exact = multinomial.pmf(np.stack([*counts, num - counts.sum(0)], 1), num, p) @ covers
    assert exact == pytest.approx(COVERAGE[share, gap, num], abs=5e-4)
    assert exact > 0.92
    times = 1000
    drawn = np.random.default_rng(0).multinomial(num, p, times)[:, :2]
    seen = np.unique(drawn[:200], axis=0)
    found = [tango(b, c, num) for b, c in seen.tolist()]
    covered = np.array([i.low <= gap <= i.high for i in found])
    assert (covered == (score_excess(gap, *seen.T, num) <= 0)).all()
    covered = (score_excess(gap, *drawn.T, num) <= 0).mean()
    assert covered == pytest.approx(exact, abs=3 * math.sqrt(exact * (1 - exact) / times))


@pytest.mark.parametrize(("mine", "other"), [(0, 0), (1, 0), (6, 16), (7, 1), (40, 40), (3, 90)])
def test_mcnemars_test_is_that_of_statsmodels_and_the_sign_flip(mine, other):
    theirs = mcnemar_of_statsmodels([[5, mine], [other, 5]], exact=True).pvalue
    assert mcnemar(mine, other) == pytest.approx(theirs, abs=1e-12)
    signs = np.repeat([1.0, -1.0, 0.0], [mine, other, 30])
    exact = mine + other <= stats.MOST_EXACT
    assert sign_flip(signs) == pytest.approx(theirs, abs=1e-12 if exact else 0.015)


def test_a_right_or_wrong_difference_names_its_methods():
    found = difference(*outcomes(6, 16, 161))
    assert found.value == pytest.approx(-10 / 161)
    assert (found.low, found.high) == (tango(6, 16, 161).low, tango(6, 16, 161).high)
    assert found.p == pytest.approx(0.052479, abs=1e-6)  # Fagerland and others 2014
    assert (found.method, found.test) == ("Tango score interval", "McNemar exact")
    assert (found.examples, found.num_groups) == (161, None)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_models_that_are_both_always_right_may_still_differ(share):
    found = difference(np.full(20, share), np.full(20, share))
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.high == -found.low == pytest.approx(0.161, abs=1e-3)


# --- graded


def test_the_sign_flip_test_is_scipys_exactly_for_few_and_nearly_for_many():
    rng = np.random.default_rng(6)
    for num, shift in product((2, 5, 13), (0.0, 0.7)):
        values = rng.normal(shift, size=num)
        theirs = permutation_test(
            (values,), np.sum, permutation_type="samples", n_resamples=2**13
        ).pvalue
        assert sign_flip(values) == pytest.approx(theirs, abs=1e-12)
    for shift in (0.1, 0.2, 0.3):
        values = rng.normal(shift, size=100)
        theirs = permutation_test(
            *((values,), lambda x, axis: x.sum(axis)),
            **{"permutation_type": "samples", "vectorized": True, "n_resamples": 9_999},
            rng=np.random.default_rng(9),
        ).pvalue
        # theirs is twice a one-sided share: its variance is doubled
        error = math.sqrt(3 * theirs * (1 - theirs) / 9_999)
        assert sign_flip(values) == pytest.approx(theirs, abs=3 * error + 1e-4)


def test_equal_sums_of_signs_count_in_spite_of_rounding():
    assert sign_flip(np.full(5, 0.1)) == 2 / 2**5
    assert sign_flip(np.array([0.1, 0.2, 0.3, -0.6])) == 1.0
    assert sign_flip(np.full(30, 0.1)) == pytest.approx(1e-4), "no random sign is as extreme"


@FEW
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12), st.randoms())
def test_the_order_and_the_common_sign_of_differences_do_not_matter(values, random):
    values = np.round(values, 3)
    mixed = values.copy()
    random.shuffle(mixed)
    assert sign_flip(mixed) == sign_flip(values) == sign_flip(-values) == sign_flip(3 * values)
    assert sign_flip(values) >= 2 / 2 ** len(values) or len(values) == 1
    assert sign_flip([*values, 0]) == sign_flip(values)


def test_the_sign_flip_test_rejects_a_true_null_in_5_of_100():
    rng = np.random.default_rng(7)
    # skewed differences of two models that are drawn alike
    drawn = rng.exponential(size=(1000, 2, 15))
    p = np.array([sign_flip(a - b) for a, b in drawn])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.021)  # three Monte Carlo errors


def test_a_graded_difference_names_its_methods_and_agrees_with_a_t_test():
    rng = np.random.default_rng(8)
    mine = rng.random(300)
    theirs = mine - rng.normal(0.02, 0.1, 300)
    found, theory = difference(mine, theirs), ttest_1samp(mine - theirs, 0)
    assert (found.method, found.test) == ("paired bootstrap", "sign-flip")
    assert (found.examples, found.num_groups) == (300, None)
    ends = theory.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-3)
    assert found.p == pytest.approx(theory.pvalue, abs=0.005)


def test_graded_values_whose_difference_is_0_or_1_are_no_shares():
    found = difference(np.array([0.5, 1.5] * 10), np.full(20, 0.5))
    assert found.method == "paired bootstrap"


def test_graded_models_that_agree_on_every_example_have_no_width():
    values = np.random.default_rng(9).random(30)
    found = difference(values, values)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_ten_thousand_examples_are_compared_in_under_a_second():
    rng = np.random.default_rng(10)
    mine, theirs = rng.random((2, 10_000))
    state = np.random.get_state()[1].copy()
    began = time.process_time()
    first = difference(mine, theirs)
    assert time.process_time() - began < 1
    assert difference(mine, theirs) == first, "the same values, the same answer"
    assert (np.random.get_state()[1] == state).all()


# --- groups


def test_copies_within_groups_count_once():
    mine, theirs = outcomes(30, 14, 60)
    groups = np.repeat(np.arange(60), 25)
    found = difference(np.repeat(mine, 25), np.repeat(theirs, 25), groups)
    alone = difference(mine, theirs)
    assert (found.method, found.test) == ("bootstrap of groups", "sign-flip of groups")
    assert (found.examples, found.num_groups) == (1500, 60)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    assert found.p == pytest.approx(alone.p, abs=0.01)
    assert difference(np.repeat(mine, 25), np.repeat(theirs, 25)).p < 1e-6, "as if all were new"


def test_groups_that_all_agree_have_tangos_interval_of_as_many_examples():
    groups = np.repeat(np.arange(20), 5)
    for sign in (-1, 0, 1):
        mine, theirs = (np.full(100, float(s > 0)) for s in (sign, -sign))
        found = difference(mine, theirs, groups)
        alone = tango(20 * (sign > 0), 20 * (sign < 0), 20)
        assert (found.value, found.low, found.high) == (sign, alone.low, alone.high)
        assert found.method == "Tango score interval of groups"


def test_a_single_group_shows_nothing():
    found = difference(np.ones(9), np.zeros(9), np.zeros(9, dtype=int))
    assert (found.value, found.p, found.num_groups) == (1.0, 1.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


# --- the choice of a hyper-parameter


def best(scores):
    return int(scores.argmax())


def test_without_anything_to_choose_the_interval_is_the_paired_one():
    rng = np.random.default_rng(11)
    mine, theirs = rng.random((2, 1, 300))
    train = rng.random((2, 1, 150))
    found = choice_interval(train[0], mine, train[1], theirs, best)
    plain = difference(mine[0], theirs[0])
    assert found.value == pytest.approx(plain.value)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=4e-3)
    assert found.method == "bootstrap with the choice repeated"


def test_a_choice_that_validation_cannot_make_widens_the_interval():
    rng = np.random.default_rng(12)
    # two choices alike on validation, .1 apart on test
    train = (rng.random((2, 140)) < 0.85).astype(float)
    test = (rng.random((2, 360)) < np.array([[0.95], [0.85]])).astype(float)
    other = (rng.random((1, 360)) < 0.87).astype(float)
    wobbling = choice_interval(train, test, train[:1], other, best)
    sure = choice_interval(np.array([[1.0], [0.0]]) * np.ones(140), test, train[:1], other, best)
    assert wobbling.high - wobbling.low > 1.4 * (sure.high - sure.low)
    assert sure.low > 0 > wobbling.low


def test_both_models_see_the_same_resamples_and_each_its_own_number_of_choices():
    rng = np.random.default_rng(13)
    train, test = rng.random((5, 100)), rng.random((5, 200))
    same = choice_interval(train, test, train, test, best)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = np.zeros((2, 100)), np.zeros((2, 200))
    found = choice_interval(
        np.concatenate([train, worse[0]]), np.concatenate([test, worse[1]]), train, test, best
    )
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_interval_with_the_choice_repeated_is_that_of_a_loop():
    rng = np.random.default_rng(14)
    train, test = rng.random((2, 3, 40)), rng.random((2, 3, 50))
    groups, test_groups = np.arange(40) // 4, np.arange(50) // 2
    found = choice_interval(train[0], test[0], train[1], test[1], best, groups, test_groups)
    drawn = []
    for _ in range(4000):
        a = (4 * rng.integers(10, size=10)[:, None] + np.arange(4)).ravel()
        b = (2 * rng.integers(25, size=25)[:, None] + np.arange(2)).ravel()
        rows = [best(train[m][:, a].mean(1)) for m in (0, 1)]
        drawn.append(test[0, rows[0], b].mean() - test[1, rows[1], b].mean())
    ends = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx(ends, abs=0.02)


def test_one_test_image_has_no_interval_with_the_choice_repeated():
    found = choice_interval(
        np.ones((1, 9)), np.ones((1, 1)), np.ones((1, 9)), np.ones((1, 1)), best
    )
    assert math.isnan(found.low)
