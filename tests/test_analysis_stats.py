"""Differences are paired over test examples."""

from __future__ import annotations

import numpy as np
import pytest

from maebench.analysis.stats import paired_difference
from maebench.evaluating.intervals import mean_interval


def test_a_paired_difference_matches_images_by_their_ids():
    rng = np.random.default_rng(4)
    ids, mine = np.arange(200), rng.random(200)
    theirs = mine - 0.1 + 0.01 * rng.standard_normal(200)
    order = rng.permutation(200)
    found = paired_difference(ids, mine, ids[order], theirs[order])
    assert found == paired_difference(ids, mine, ids, theirs)
    assert found.value == pytest.approx(0.1, abs=0.005)
    # what is common to both does not widen it
    assert found.high - found.low < 0.005 < mean_interval(mine).high - mean_interval(mine).low
    turned = paired_difference(ids, theirs, ids, mine)
    assert turned.value == -found.value
    assert turned.low == pytest.approx(-found.high, abs=5e-4)


@pytest.mark.parametrize("other", [np.arange(1, 11), np.arange(9), np.array([*range(9), 8])])
def test_different_images_cannot_be_paired(other):
    with pytest.raises(ValueError, match="not tested on the same images"):
        paired_difference(np.arange(10), np.ones(10), other, np.ones(len(other)))
