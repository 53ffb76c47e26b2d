"""Intervals against simulation, normal theory and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from maebench.evaluating import intervals as stats
from maebench.evaluating.intervals import Interval, mean_interval


@pytest.mark.parametrize("draw", ["right or wrong", "skewed"])
def test_intervals_hold_the_true_mean_in_95_of_100_repetitions(draw, monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 500)  # of which the coverage hardly depends
    rng = np.random.default_rng(0)
    times, size = 400, 100
    if draw == "skewed":
        true, samples = 1.0, rng.gamma(4, 1 / 4, (times, size))
    else:
        true, samples = 0.8, (rng.random((times, size)) < 0.8).astype(float)
    found = [mean_interval(sample) for sample in samples]
    covered = np.mean([i.low <= true <= i.high for i in found])
    # a percentile interval of 100 covers a little less than 95 %; 400 repetitions: +- 1.1 %
    assert 0.91 < covered < 0.975
    missed = [np.mean([i.low > true for i in found]), np.mean([i.high < true for i in found])]
    assert max(missed) < 0.06, "it misses to one side only"


def test_the_interval_is_that_of_normal_theory_for_many_examples():
    values = (np.random.default_rng(1).random(4000) < 0.3).astype(float)
    found, half = mean_interval(values), 1.96 * values.std(ddof=1) / math.sqrt(4000)
    assert found.value == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(2).exponential(size=50)
    found = mean_interval(values)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert found.high == pytest.approx(theirs.high, abs=0.04 * width)
    # skewed to the right: so is the interval
    assert found.high - found.value > 1.02 * (found.value - found.low)


def test_the_same_values_have_the_same_interval_in_batches_of_any_size(monkeypatch):
    values = np.random.default_rng(3).random(1000)
    state = np.random.get_state()[1].copy()
    first = mean_interval(values)
    assert mean_interval(values.copy()) == first
    assert (np.random.get_state()[1] == state).all()
    monkeypatch.setattr(stats, "BATCH_NUMBERS", 1000 * 300)
    assert mean_interval(values).value == first.value
    assert mean_interval(values).low == pytest.approx(first.low, abs=2e-3)


def test_values_that_are_all_equal_have_no_width_and_one_value_no_interval():
    assert mean_interval(np.full(10, 0.25)) == Interval(0.25, 0.25, 0.25)
    alone = mean_interval(np.array([0.5]))
    assert alone.value == 0.5
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
