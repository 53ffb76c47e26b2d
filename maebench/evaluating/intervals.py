"""How sure a mean over test examples is, and which choices validation cannot tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000  # the ends of a 95 % interval then move by about 2 % of its width
SEED = 0  # an interval of the same values is the same interval
BATCH_NUMBERS = 4_000_000  # resampled at a time: 32 MB
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
    With groups whole groups are resampled, whatever the values.

    Args:
        values: one number per example, (N,).
        groups: which examples belong together, such as the images of one patient, (N,).
    """
    values = np.asarray(values, dtype=np.float64)
    if groups is None and is_right_or_wrong(values):
        return wilson(int(values.sum()), len(values))
    return bootstrap_interval(values, groups)


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
    ends. Where all groups are wholly right, or all wholly wrong, drawing them again shows
    nothing; they get Wilson's interval of as many examples as there are groups.

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
        if groups is None or not is_right_or_wrong(values):
            return Interval(mean, mean, mean, method)
        ends = wilson(len(sizes) if mean else 0, len(sizes))
        return Interval(mean, ends.low, ends.high, "Wilson of groups")
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
