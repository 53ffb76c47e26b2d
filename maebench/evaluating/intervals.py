"""How sure a mean over test examples is, and which choices validation cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000  # the ends of a 95 % interval then move by about 2 % of its width
SEED = 0  # an interval of the same values is the same interval
BATCH_NUMBERS = 400_000  # resampled at a time: 3 MB, which stays in the cache
Z = 1.959964  # within which 95 % of a standard normal lie


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, and the method by which that was found."""

    value: float
    low: float
    high: float
    method: str = ""


def is_right_or_wrong(values: NDArray[np.floating]) -> bool:
    """Whether each example is simply right or wrong: all values are 0 or 1."""
    return bool(np.isin(values, (0, 1)).all())


def mean_interval(
    values: NDArray[np.floating], groups: NDArray[np.integer] | None = None
) -> Interval:
    """The mean over test examples with its 95 % interval, by the method that fits the values.

    A right-or-wrong metric has Wilson's score interval, a graded one the percentile bootstrap.
    With groups whole groups are resampled, whatever the values; only where all examples are
    right, or all wrong, drawing them again shows nothing, and the interval is Wilson's of as
    many examples as there are groups.

    Args:
        values: one number per example, (N,).
        groups: which examples belong together, such as the images of one patient, (N,).
    """
    values = np.asarray(values, dtype=np.float64)
    if groups is None:
        if is_right_or_wrong(values):
            return wilson(int(values.sum()), len(values))
        return bootstrap_interval(values)
    found = bootstrap_interval(values, groups)
    if found.low == found.high and found.value in (0, 1) and is_right_or_wrong(values):
        num_groups = len(np.unique(groups))
        ends = wilson(int(found.value) * num_groups, num_groups)
        return Interval(found.value, ends.low, ends.high, "Wilson of groups")
    return found


def wilson(num_right: int, num_examples: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927), which is true at its ends too.

    20 of 20 right is [84, 100] %, not [100, 100], and a single example has an interval.
    """
    from scipy.stats import binomtest

    found = binomtest(num_right, num_examples).proportion_ci(LEVEL, method="wilson")
    return Interval(num_right / num_examples, float(found.low), float(found.high), "Wilson")


def bootstrap_interval(
    values: NDArray[np.floating], groups: NDArray[np.integer] | None = None
) -> Interval:
    """The mean over test examples and its percentile bootstrap interval (Efron 1979).

    Of groups, whole groups are drawn again and the mean is over all of their examples (Davison
    and Hinkley 1997, section 3.8). A single example, or a single group, has no interval: NaN
    ends. Values that are all equal have an interval without width.

    Args:
        values: one number per example, (N,).
        groups: which examples belong together, (N,).
    """
    from scipy.stats import bootstrap

    values = np.asarray(values, dtype=np.float64)
    mean, method = float(values.mean()), "bootstrap" if groups is None else "bootstrap of groups"
    (sums,), sizes = group_sums(values[None], groups)
    if len(sizes) < 2:
        return Interval(mean, float("nan"), float("nan"), method)
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean, method)
    found = bootstrap(
        (values,) if groups is None else (sums, sizes),
        np.mean if groups is None else _ratio_of_sums,
        paired=groups is not None,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_NUMBERS // len(sizes)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), method)


def _ratio_of_sums(
    sums: NDArray[np.floating], sizes: NDArray[np.floating], axis: int
) -> NDArray[np.floating]:
    found: NDArray[np.floating] = sums.sum(axis=axis) / sizes.sum(axis=axis)
    return found


def group_sums(
    values: NDArray[np.floating], groups: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The sums over each group, and the sizes of the groups; without groups each is its own.

    Args:
        values: one row per quantity, (K, N).
        groups: which examples belong together, (N,).

    Returns:
        Sums (K, number of groups) and sizes (number of groups,), both float64.
    """
    values = np.asarray(values, dtype=np.float64)
    if groups is None:
        return values, np.ones(values.shape[1])
    names, place = np.unique(groups, return_inverse=True)
    sums = [np.bincount(place, row, minlength=len(names)) for row in values]
    return np.stack(sums), np.bincount(place).astype(np.float64)


def resampled_means(
    rng: np.random.Generator,
    rows: NDArray[np.floating],
    groups: NDArray[np.integer] | None,
    resamples: int,
) -> NDArray[np.floating]:
    """The mean of each row over examples, or whole groups, drawn again with replacement.

    Args:
        rng: where the draws come from.
        rows: numbers per row and example, (K, N); all rows share the draws.
        groups: which examples belong together, (N,).
        resamples: how often.

    Returns:
        Means, (resamples, K).
    """
    sums, sizes = group_sums(rows, groups)
    return np.concatenate(
        [
            counts @ sums.T / (counts @ sizes)[:, None]
            for counts in resampled_counts(rng, len(sizes), resamples)
        ]
    )


def resampled_counts(
    rng: np.random.Generator, num: int, resamples: int
) -> Iterator[NDArray[np.floating]]:
    """How often each of `num` units is drawn in each resample, in batches (B, num)."""
    batch = max(1, BATCH_NUMBERS // num)
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        drawn = rng.integers(num, size=(size, num)) + num * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * num).reshape(size, num).astype(np.float64)


def indistinguishable(outcomes: NDArray[np.floating], best: int) -> NDArray[np.bool_]:
    """Which choices validation cannot tell from the best one at 5 %, the best one included.

    With d the difference of two choices per image, sum(d)^2 / sum(d^2) is McNemar's statistic
    (McNemar 1947) where outcomes are right or wrong, and in general the squared sum in units of
    its variance when signs are flipped at random; under no difference it is chi-squared with
    one degree of freedom.

    Args:
        outcomes: what validation says of each choice and image, (G, M).
        best: the row that was chosen.
    """
    difference = outcomes[best].astype(np.float64) - outcomes
    # without a division: choices that agree on every image are 0 <= 0
    return np.asarray(difference.sum(axis=1) ** 2 <= Z**2 * (difference**2).sum(axis=1))
