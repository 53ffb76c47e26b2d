"""Differences over seeds: known answers of scipy, statsmodels and simulation; what few show."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test, ttest_1samp, ttest_rel
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from maebench.analysis.arms import groups_of, pairwise_p
from maebench.analysis.seeds import (
    beats,
    components,
    detectable,
    equivalent,
    holm,
    over_seeds,
    owen_spread,
    pairing_gain,
    power_of,
    seeds_needed,
    sign_flip_seeds,
)
from maebench.analysis.stats import mcnemar, tango
from maebench.evaluating.intervals import wilson

FEW = settings(max_examples=25, deadline=None)
DIFFERENCES = st.lists(st.integers(-360, 360), min_size=2, max_size=10).map(
    lambda counts: np.array(counts) / 360
)


def drawn(seed, *shape, mean=0.0):
    return np.random.default_rng(seed).normal(mean, size=shape)


# --- the difference over seeds


def test_the_difference_over_seeds_is_scipys_paired_t_test():
    for num in (2, 3, 5, 8):
        a, b = drawn(num, num, mean=0.8), drawn(num + 50, num)
        found, theirs = over_seeds(a - b), ttest_rel(a, b)
        ends = theirs.confidence_interval(0.95)
        assert found.value == pytest.approx((a - b).mean())
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
        assert found.p == pytest.approx(theirs.pvalue)
        assert found.deviation == pytest.approx((a - b).std(ddof=1))
        assert (found.num_seeds, found.method) == (num, "t over seeds")
        exact = permutation_test((a - b,), np.sum, permutation_type="samples").pvalue
        assert found.p_flip == pytest.approx(exact)


@pytest.mark.parametrize(("num", "least"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_few_seeds_bring_the_sign_flip_to_2_in_2_to_their_number_and_no_further(num, least):
    found = over_seeds(np.linspace(1, 2, num))
    assert found.p_flip == found.least_p_flip == least


def test_one_seed_has_neither_interval_nor_p_value():
    found = over_seeds([0.3])
    assert (found.value, found.p_flip, found.num_seeds) == (0.3, 1.0, 1)
    assert all(map(math.isnan, (found.low, found.high, found.p, found.deviation, beats([0.3]))))
    assert equivalent([0.3], 0.5)[1] is False
    assert math.isnan(pairing_gain([0.3], [0.1]))


def test_differences_that_are_all_the_same_prove_nothing():
    for values in ([1 / 360] * 3, [0.1 + 0.2 - 0.3 + 1 / 360, 1 / 360, 1 / 360]):
        found = over_seeds(values)
        assert math.isnan(found.p)
        assert math.isnan(found.low)
        assert (found.p_flip, found.deviation) == (0.25, 0.0)
        assert math.isnan(beats(values))
        assert math.isnan(equivalent(values, 0.5)[0])
        assert seeds_needed(found.deviation, 0.01) is None
    same = over_seeds([0.0] * 5)
    assert (same.value, same.p, same.p_flip) == (0.0, 1.0, 1.0)


@FEW
@given(DIFFERENCES, st.randoms())
def test_turning_two_ways_round_turns_the_difference_and_the_order_of_seeds_is_of_no_matter(
    values, random
):
    mixed = values.copy()
    random.shuffle(mixed)
    found, turned, other = over_seeds(values), over_seeds(-values), over_seeds(mixed)
    nan = {"nan_ok": True, "abs": 1e-9}
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), **nan)
    assert (found.p, found.p_flip) == pytest.approx((turned.p, turned.p_flip), **nan)
    assert (other.low, other.p, other.p_flip) == pytest.approx(
        (found.low, found.p, found.p_flip), **nan
    )
    assert beats(values) == pytest.approx(1 - beats(-values), **nan)


@pytest.mark.slow
@pytest.mark.parametrize("num", [3, 5, 8])
def test_t_intervals_hold_the_true_mean_in_95_of_100_and_p_flags_5(num):
    found = [over_seeds(values) for values in drawn(0, 1000, num, mean=1.0)]
    error = 3 * math.sqrt(0.95 * 0.05 / 1000)
    assert np.mean([i.low <= 1 <= i.high for i in found]) == pytest.approx(0.95, abs=error)
    flagged = [over_seeds(values).p <= 0.05 for values in drawn(1, 1000, num)]
    assert np.mean(flagged) == pytest.approx(0.05, abs=error)


def test_a_new_seed_is_as_often_better_as_was_said():
    # how probably the next seed is above what it then was: uniform, whatever the truth
    rows = drawn(2, 3000, 6, mean=0.5)
    said = np.array([beats(row[:5] - row[5]) for row in rows])
    for share in (0.05, 0.2, 0.5, 0.9):
        error = 3 * math.sqrt(share * (1 - share) / 3000)
        assert np.mean(said < share) == pytest.approx(share, abs=error)
    assert beats([1, -1, 1, -1]) == pytest.approx(0.5)
    assert beats([1.0, 1.1, 0.9, 1.0]) > 0.999


# --- equivalence


@FEW
@given(DIFFERENCES, st.floats(0.01, 0.5))
def test_equivalence_is_the_two_one_sided_tests_of_statsmodels(values, margin):
    p, equal = equivalent(values, margin)
    if np.ptp(values) > 0:
        theirs = ttost_paired(values, np.zeros_like(values), -margin, margin)[0]
        assert p == pytest.approx(theirs, abs=1e-12)
        assert equal == (p <= 0.05)
        assert equivalent(values, margin + 0.1)[0] <= p + 1e-12, "a wider margin is easier"
        assert equivalent(-values, margin)[0] == pytest.approx(p)


def test_no_difference_shown_is_not_equivalence():
    values = drawn(3, 5) * 0.02
    assert over_seeds(values).p > 0.05
    assert not equivalent(values, 0.01)[1]
    assert equivalent(values, 0.1)[1]


@pytest.mark.slow
def test_ways_that_differ_by_the_margin_are_called_equal_in_5_of_100():
    called = [equivalent(row, 1.0)[1] for row in drawn(4, 1000, 8, mean=1.0)]
    assert np.mean(called) == pytest.approx(0.05, abs=0.021)


# --- families


@pytest.mark.parametrize("values", [[], [0.2], [0.9, 0.001, 0.02, 0.02], [0.03, math.nan, 0.011]])
def test_holms_p_values_are_those_of_the_definition_and_what_has_none_counts(values):
    found = holm(values)
    assert len(found) == len(values)
    there = [p for p in values if not math.isnan(p)]
    for p, adjusted in zip(values, found, strict=True):
        steps = [(len(values) - sum(r < q for r in there)) * q for q in there if q <= p]
        expected = math.nan if math.isnan(p) else min(1, max(steps))
        assert adjusted == pytest.approx(expected, nan_ok=True)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, math.nan, 0.03])[::2] == pytest.approx([0.03, 0.06])


# --- power


@pytest.mark.parametrize("num", [3, 5, 8, 30])
@pytest.mark.parametrize("effect", [0.3, 1.0, 2.0])
def test_power_is_that_of_statsmodels(num, effect):
    for family in (1, 4):
        theirs = TTestPower().power(effect, num, 0.05 / family)
        found = power_of(0.5 * effect, 0.5, num, family)
        if not math.isnan(theirs):
            assert found == pytest.approx(theirs, abs=1e-6)
        assert power_of(-0.5 * effect, 0.5, num, family) == found


def test_power_is_how_often_a_planted_difference_is_found():
    least = detectable(0.5, 5, family=3)
    rows = np.random.default_rng(5).normal(least, 0.5, (10_000, 5))
    found = np.mean(ttest_1samp(rows, 0, axis=1).pvalue <= 0.05 / 3)
    assert found == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 10_000))


def test_without_a_difference_the_power_is_the_level():
    assert power_of(0.0, 1.0, 5) == pytest.approx(0.05)
    assert power_of(0.0, 1.0, 5, family=10) == pytest.approx(0.005)


@pytest.mark.parametrize("num", [2, 3, 5, 8, 100])
@pytest.mark.parametrize("family", [1, 3, 100])
def test_the_detectable_difference_has_the_power_that_it_promises(num, family):
    found = detectable(0.7, num, family)
    assert power_of(found, 0.7, num, family) == pytest.approx(0.8, abs=1e-6)
    assert detectable(1.4, num, family) == pytest.approx(2 * found)
    assert detectable(0.7, num, family, power=0.9) > found
    assert detectable(0.7, num + 1, family) < found < detectable(0.7, num, family + 1)


@FEW
@given(st.floats(0.05, 3), st.integers(1, 12))
def test_the_seeds_needed_are_the_least_that_suffice(target, family):
    num = seeds_needed(1.0, target, family)
    assert power_of(target, 1.0, num, family) >= 0.8
    assert num == 2 or power_of(target, 1.0, num - 1, family) < 0.8
    assert detectable(1.0, num, family) <= target * (1 + 1e-9)


def test_known_numbers_of_seeds():
    # as G*Power says of paired t tests
    assert [seeds_needed(1, d) for d in (0.5, 0.8)] == [34, 15]
    assert seeds_needed(1, 1000) == 2


def test_what_is_not_known_has_no_power_and_no_number_of_seeds():
    nan = math.nan
    assert (detectable(1.0, 1), power_of(1.0, 1.0, 1)) == (math.inf, 0.0)
    for deviation in (0.0, nan):
        assert math.isnan(detectable(deviation, 5))
        assert math.isnan(power_of(1.0, deviation, 5))
        assert seeds_needed(deviation, 1.0) is None
    assert seeds_needed(1.0, 0.0) is None
    assert seeds_needed(1.0, 1e-5) is None, "more than a million"


@pytest.mark.parametrize(("family", "num"), [(1, 6), (2, 7), (3, 7), (4, 8), (10, 9)])
def test_the_sign_flip_test_needs_so_many_seeds_to_be_significant_at_all(family, num):
    assert sign_flip_seeds(family) == num == math.ceil(1 + math.log2(family / 0.05))
    # the least p-value at Holm's strictest step
    assert family * over_seeds(np.ones(num)).least_p_flip <= 0.05
    assert family * over_seeds(np.ones(num - 1)).least_p_flip > 0.05


# --- where a score varies


def grid(rng, sizes, deviations):
    """Sums of effects of seeds, probe seeds and images."""
    seeds = rng.normal(0, deviations[0], (sizes[0], 1, 1))
    probes = rng.normal(0, deviations[1], (*sizes[:2], 1))
    return seeds + probes + rng.normal(0, deviations[2], (1, 1, sizes[2]))


def test_the_components_are_those_that_were_planted():
    rng = np.random.default_rng(6)
    found = components(grid(rng, (400, 5, 300), (2.0, 1.0, 3.0)))
    assert found.seeds == pytest.approx(2.0, rel=0.1)
    assert found.probes == pytest.approx(1.0, rel=0.1)
    assert found.images == pytest.approx(3.0 / math.sqrt(300), rel=0.1)


def test_the_components_are_those_of_nested_analysis_of_variance():
    values = np.random.default_rng(7).normal(size=(6, 3, 50)) + np.arange(6)[:, None, None]
    scores = values.mean(axis=2)
    within = sum(((row - row.mean()) ** 2).sum() for row in scores) / (6 * 2)
    between = 3 * ((scores.mean(1) - scores.mean()) ** 2).sum() / 5
    found = components(values)
    assert found.probes**2 == pytest.approx(within)
    assert found.seeds**2 == pytest.approx((between - within) / 3)


def test_without_several_probe_seeds_seeds_and_probe_are_one_number():
    values = grid(np.random.default_rng(8), (400, 1, 50), (2.0, 1.0, 3.0))
    found = components(values)
    assert found.probes is None
    assert found.seeds == pytest.approx(math.sqrt(2**2 + 1**2), rel=0.1)
    assert found == components(values[:, 0])
    scores = values[:, 0].mean(axis=1)
    assert found.seeds == pytest.approx(scores.std(ddof=1)), "what the t test sees"


def test_components_are_never_negative_and_one_seed_has_none_between_seeds():
    # the probes of each seed differ more than the seeds
    assert components(np.array([[[0.0], [1.0]], [[1.0], [0.0]]]) * np.ones(9)).seeds == 0
    alone = components(np.random.default_rng(9).random((1, 3, 20)))
    assert math.isnan(alone.seeds)
    assert alone.probes > 0
    assert math.isnan(components(np.ones((3, 1))).images)


def test_the_image_component_is_the_error_of_a_share():
    outcomes = (np.random.default_rng(10).random((4, 360)) < 0.9).astype(float)
    share = outcomes.mean()
    assert components(outcomes).images == pytest.approx(
        math.sqrt(share * (1 - share) / 360), rel=0.02
    )


def test_pairing_saves_what_seeds_have_in_common():
    rng = np.random.default_rng(11)
    common = 3 * rng.normal(size=2000)
    a, b = common + rng.normal(size=(2, 2000))
    assert pairing_gain(a, b) == pytest.approx(10, rel=0.1)  # (9 + 1 + 9 + 1) / (1 + 1)
    assert pairing_gain(*rng.normal(size=(2, 2000))) == pytest.approx(1, rel=0.1)
    assert pairing_gain([0.1, 0.2], [0.2, 0.3]) == math.inf
    assert math.isnan(pairing_gain([0.1, 0.1], [0.2, 0.2]))


def test_owens_spread_is_that_of_new_seeds_on_new_images():
    rng = np.random.default_rng(12)
    seeds, images, rest = 1.0, 4.0, 0.5
    outcomes = rng.normal(0, seeds, (40, 1)) + rng.normal(0, images, (1, 500))
    outcomes = outcomes + rng.normal(0, rest, (40, 500))
    expected = math.sqrt(seeds**2 / 40 + images**2 / 500)
    assert owen_spread(outcomes) == pytest.approx(expected, rel=0.2)
    # resampled along one way only, it would miss the other
    assert owen_spread(outcomes) > 1.1 * seeds / math.sqrt(40)
    assert owen_spread(outcomes) > 1.1 * images / math.sqrt(500)
    assert owen_spread(outcomes) == owen_spread(outcomes)


def test_owens_spread_is_that_of_a_loop_and_takes_groups():
    rng = np.random.default_rng(13)
    outcomes, groups = rng.normal(size=(8, 30)) + rng.normal(size=30), np.arange(30) // 3
    for given_groups, size in ((None, 1), (groups, 3)):
        means = []
        for _ in range(2000):
            rows = rng.integers(8, size=8)
            units = rng.integers(30 // size, size=30 // size)
            columns = (size * units[:, None] + np.arange(size)).ravel()
            means.append(outcomes[np.ix_(rows, columns)].mean())
        found = owen_spread(outcomes, given_groups)
        assert found == pytest.approx(np.std(means), rel=0.08)  # three Monte Carlo errors


def test_owens_spread_is_not_for_fewer_than_eight_seeds():
    with pytest.raises(ValueError, match="needs 8, not 7"):
        owen_spread(np.ones((7, 10)))


# --- the example of docs/statistics.md

PAGE = (Path(__file__).parent.parent / "docs" / "statistics.md").read_text(encoding="utf-8")
EXAMPLE = PAGE.split("## An example")[1].split("## Methods")[0]


def rows_of_the_example():
    found = re.findall(r"^\| (\w+ 0\.\d+) \|((?: \d+\.\d \|){5})$", EXAMPLE, re.MULTILINE)
    return {way: np.array([float(x) for x in cells.split("|")[:-1]]) for way, cells in found}


def test_the_table_of_the_example_is_what_its_scores_give():
    scores = rows_of_the_example()
    baseline = scores.pop("random 0.5")
    found = {way: over_seeds(values - baseline) for way, values in scores.items()}
    assert len(found) == 3
    for (way, seen), adjusted in zip(
        found.items(), holm([f.p for f in found.values()]), strict=True
    ):
        cells = [
            *(way, f"{seen.value:+.2f} [{seen.low:+.2f}, {seen.high:+.2f}]"),
            *(f"{p:.4f}" for p in (seen.p, adjusted, seen.p_flip)),
            f"{detectable(seen.deviation, 5, 3):.2f}",
            str(seeds_needed(seen.deviation, 0.5, 3)),
            f"{100 * beats(scores[way] - baseline):.0f} %",
            f"{pairing_gain(scores[way], baseline):.1f}",
        ]
        assert f"| {' | '.join(cells)} |" in EXAMPLE


def test_the_sentences_of_the_example_are_true():
    scores = rows_of_the_example()
    difference = scores["block 0.5"] - scores["random 0.5"]
    assert f"p = {equivalent(difference, 0.5)[0]:.3f}" in EXAMPLE
    assert f"a family of three needs {sign_flip_seeds(3)} seeds" in EXAMPLE
    ways, told = list(scores), pairwise_p(np.stack(list(scores.values())))
    groups = [" and ".join(ways[i] for i in group) for group in groups_of(told)]
    assert "; ".join(groups) in " ".join(EXAMPLE.split())
    means = {way: values.mean() for way, values in scores.items()}
    assert means["block 0.5"] > means["random 0.5"] > means["block 0.75"]
    assert f"{means['block 0.5'] - means['block 0.75']:.1f} points apart" in EXAMPLE


def test_the_numbers_of_the_page_are_true():
    text = " ".join(PAGE.split())
    for counts in ((15, 5), (14, 5)):
        found = tango(*counts, 360)
        assert f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]" in text
        assert f"p = {mcnemar(*counts):.3f}".replace("0.", ".") in text
    assert f"20 right of 20 is [{100 * wilson(20, 20).low:.1f}, 100.0]" in text
    assert f"{sign_flip_seeds(1)} seeds for one test, {sign_flip_seeds(3)} for three" in text


def test_groups_of_images_of_one_size_count_as_single_images():
    values = np.random.default_rng(0).random((3, 2, 12))
    repeated, groups = np.repeat(values, 5, axis=2), np.repeat(np.arange(12), 5)
    assert components(repeated, groups).images == pytest.approx(components(values).images)
    assert components(repeated).images < components(values).images / 2
    assert components(values, np.arange(12)) == components(values)


def test_the_least_p_of_a_sign_flip_is_that_of_its_random_signs_beyond_twenty_seeds():
    values = np.linspace(1, 2, 21)
    assert over_seeds(values[:20]).least_p_flip == 2 / 2**20
    found = over_seeds(values)
    assert found.p_flip == found.least_p_flip == 1e-4
