"""Are these two models different, given their weights: paired over test examples.

Nothing here says what another seed of pretraining would give; `maebench.analysis.seeds` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maebench.evaluating.intervals import (
    BATCH_NUMBERS,
    LEVEL,
    RESAMPLES,
    SEED,
    Interval,
    Z,
    bootstrap_interval,
    group_sums,
    is_right_or_wrong,
    resampled_means,
)

FLIPS = 9_999  # of random signs: p is then known to .002 at .05, and at least .0001
MOST_EXACT = 20  # differences of which all 2^20 signs are tried: 8 MB, hundredths of a second

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """A paired difference of two models with its interval, and its p-value by a named test.

    `choice` is its interval where the choices made on train are made again in each resample; None
    where nothing was chosen.
    """

    p: float
    test: str
    examples: int
    num_groups: int | None = None
    choice: Interval | None = None


def paired_difference(
    ids: Integers,
    values: Floats,
    other_ids: Integers,
    other: Floats,
    groups: Integers | None = None,
) -> Difference:
    """The mean difference of two models on the same test examples, matched by image id.

    Right-or-wrong metrics have Tango's score interval and the exact McNemar test, graded ones
    the bootstrap of the paired differences and the sign-flip test. With groups whole groups are
    resampled and change sign together.

    Args:
        ids: image ids of the first model, (N,).
        values: its number per example, (N,).
        other_ids: image ids of the second model, (N,), in any order.
        other: its number per example, (N,).
        groups: which examples belong together, in the order of `ids`, (N,).

    Raises:
        ValueError: the examples are not the same.
    """
    order, other_order = np.argsort(ids), np.argsort(other_ids)
    if not np.array_equal(ids[order], other_ids[other_order]):
        raise ValueError("the two models were not tested on the same images")
    mine = np.asarray(values[order], dtype=np.float64)
    theirs = np.asarray(other[other_order], dtype=np.float64)
    right_or_wrong = is_right_or_wrong(mine) and is_right_or_wrong(theirs)
    if groups is not None:
        return _of_groups(mine - theirs, groups[order], right_or_wrong)
    if right_or_wrong:
        return _of_right_or_wrong(mine - theirs)
    found = bootstrap_interval(mine - theirs)
    return Difference(
        *(found.value, found.low, found.high, "paired bootstrap"),
        p=sign_flip(mine - theirs),
        test="sign-flip",
        examples=len(mine),
    )


def _of_right_or_wrong(difference: Floats) -> Difference:
    mine, other, num = int((difference > 0).sum()), int((difference < 0).sum()), len(difference)
    found = tango(mine, other, num)
    return Difference(
        *(found.value, found.low, found.high, found.method),
        p=mcnemar(mine, other),
        test="McNemar exact",
        examples=num,
    )


def _of_groups(difference: Floats, groups: Integers, right_or_wrong: bool) -> Difference:
    found = bootstrap_interval(difference, groups)
    (sums,), sizes = group_sums(difference[None], groups)
    if right_or_wrong and found.low == found.high and found.value in (-1, 0, 1):
        # drawing again what is the same everywhere shows nothing: as many examples as groups
        won, lost = (len(sizes) if found.value == sign else 0 for sign in (1, -1))
        ends = tango(won, lost, len(sizes))
        found = Interval(found.value, ends.low, ends.high, "Tango score interval of groups")
    return Difference(
        *(found.value, found.low, found.high, found.method),
        p=sign_flip(sums),
        test="sign-flip of groups",
        examples=len(difference),
        num_groups=len(sizes),
    )


# --- right or wrong


def mcnemar(only_mine: int, only_other: int) -> float:
    """The p-value of McNemar's exact test, from the examples that only one model has right.

    Those are heads or tails of a fair coin where the models do not differ (McNemar 1947).
    """
    from scipy.stats import binomtest

    discordant = only_mine + only_other
    return float(binomtest(only_mine, discordant).pvalue) if discordant else 1.0


def tango(only_mine: int, only_other: int, examples: int) -> Interval:
    """Tango's score interval of a paired difference of shares (Tango 1998).

    It holds the differences that a score test does not reject, has width also where both models
    agree on every example, and never leaves [-1, 1].
    """
    return Interval(
        (only_mine - only_other) / examples,
        -_upper_end(only_other, only_mine, examples),
        _upper_end(only_mine, only_other, examples),
        "Tango score interval",
    )


def _upper_end(b: int, c: int, n: int) -> float:
    from scipy.optimize import brentq

    if b == n:
        return 1.0
    # at (b - c) / n itself both sides of the score equation can be 0; an end is never so near
    found: float = brentq(score_excess, (b - c) / n + 1e-6, 1.0, args=(b, c, n))
    return found


def score_excess(difference: float, b: Integers | int, c: Integers | int, n: int) -> Floats:
    """By how much the squared score of a supposed difference exceeds what 5 % allow.

    Of n pairs, b are right only in the first model and c only in the second. Under p_b - p_c = D
    the likelihood is greatest at p_c = q, a root of 2n q^2 + B q - c D (1 - D) = 0 with
    B = (2n - b + c) D - b - c, and b - c - n D has the variance n (2q + D (1 - D)); Tango 1998.

    Returns:
        (b - c - n D)^2 - z^2 times that variance; at most 0 for what the interval holds.
    """
    D = difference
    B = (2 * n - b + c) * D - b - c
    q = (np.sqrt(np.maximum(B**2 + 8 * n * c * D * (1 - D), 0)) - B) / (4 * n)
    found: Floats = (b - c - n * D) ** 2 - Z**2 * n * (2 * q + D * (1 - D))
    return found


# --- any values


def sign_flip(differences: Floats) -> float:
    """The two-sided p-value of the sign-flip test: are differences as often negative as positive?

    Where the two models do not differ, the sign of each difference is a fair coin: p is the share
    of all signs whose sum is as far from 0 as the seen one (Fisher 1935, The Design of
    Experiments, section 21). All signs are tried up to MOST_EXACT differences that are not 0,
    FLIPS random ones beyond. scipy's permutation_test gives the same and takes 12 seconds for
    10,000 images, this takes 0.4.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    # equal sums differ by rounding
    seen = abs(values.sum()) - 1e-12 * np.abs(values).sum()
    if len(values) > MOST_EXACT:
        extreme = sum(int((np.abs(sums) >= seen).sum()) for sums in _random_signs(values))
        return (extreme + 1) / (FLIPS + 1)  # the seen signs are one of them
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(np.abs(sums) >= seen))


def _random_signs(values: Floats) -> Iterator[Floats]:
    """Sums under FLIPS random signs, in batches."""
    rng, num = np.random.default_rng(SEED), len(values)
    batch = max(1, BATCH_NUMBERS // num)
    for start in range(0, FLIPS, batch):
        size = (min(batch, FLIPS - start), -(-num // 8))
        positive = np.unpackbits(rng.integers(256, size=size, dtype=np.uint8), axis=1, count=num)
        yield 2 * (positive @ values) - values.sum()


# --- with the choice of a hyper-parameter


def choice_interval(
    validation: Floats,
    test: Floats,
    other_validation: Floats,
    other_test: Floats,
    choose: Callable[[Floats], int],
    groups: Integers | None = None,
    test_groups: Integers | None = None,
    resamples: int = RESAMPLES,
) -> Interval:
    """The interval of the difference of two models, each with a hyper-parameter chosen on train.

    In each resample train images are drawn again, the same for both models, each model chooses
    again, and the chosen rows are compared on test images drawn again: the interval holds what
    the choice adds (Efron 2014, Estimation and Accuracy after Model Selection).

    Args:
        validation: outcome of each choice and validated train image of the first model, (G, M).
        test: outcome of each choice and test image of the first model, (G, N).
        other_validation: the second model's, (H, M): the same images in the same order.
        other_test: the second model's, (H, N).
        choose: takes the mean validation outcome of each choice, gives the index that is chosen.
        groups: which train images belong together, (M,).
        test_groups: which test images belong together, (N,).
        resamples: how often.
    """
    num = len(validation)
    validated = np.concatenate([validation, other_validation]).astype(np.float64)
    tested = np.concatenate([test, other_test]).astype(np.float64)

    def difference(scores: Floats, means: Floats) -> float:
        return float(means[choose(scores[:num])] - means[num + choose(scores[num:])])

    value = difference(validated.mean(axis=1), tested.mean(axis=1))
    rng = np.random.default_rng(SEED)
    scores = resampled_means(rng, validated, groups, resamples)
    means = resampled_means(rng, tested, test_groups, resamples)
    found = [difference(*pair) for pair in zip(scores, means, strict=True)]
    alone = len(group_sums(tested, test_groups)[1]) < 2
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    method = "bootstrap with the choice repeated"
    return Interval(value, *((np.nan, np.nan) if alone else (float(low), float(high))), method)
