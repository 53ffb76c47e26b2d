"""Are these two ways of pretraining different: paired over seeds, on the same test images.

A seed draws everything that is left to chance in pretraining and evaluation. What is asked here
is what a new seed would show on these test images; `maebench.analysis.stats` asks about two given
models and new test images instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maebench.analysis.stats import FLIPS, MOST_EXACT, sign_flip
from maebench.evaluating.intervals import (
    LEVEL,
    RESAMPLES,
    SEED,
    Interval,
    group_sums,
    resampled_counts,
    resampled_means,
)

SIGNIFICANCE = 0.05
POWER = 0.8  # Cohen 1988, Statistical Power Analysis, section 2.4: the usual one
MOST_SEEDS = 1_000_000  # beyond, a number of seeds is no answer
LEAST_SEEDS_OF_SPREAD = 8  # fewer, drawn again, are too often the same few
ROUNDING = 1e-12  # scores are of the order of 1, and their differences are off by 1e-16

Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class SeedDifference(Interval):
    """The mean difference over seeds with its t interval, and what tests say of it.

    `p` is that of the paired t test, `p_flip` that of the sign-flip test, exact up to 20 seeds,
    which so many cannot bring below `least_p_flip`; `deviation` is the standard deviation between
    seeds.
    """

    p: float
    p_flip: float
    least_p_flip: float
    deviation: float
    num_seeds: int


def over_seeds(differences: Sequence[float] | Floats) -> SeedDifference:
    """The mean of paired differences over seeds with its 95 % t interval (Student 1908).

    One seed has no interval and no p-value: NaN. Neither have differences that are all the same:
    scores are counts of right images, a few of them agree by rounding alone, and a spread that
    was not seen is no proof that there is none. Only where all are 0 is p 1.

    Args:
        differences: first way minus second, one per seed that both share, (S,).
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(differences, dtype=np.float64)
    low = high = p = deviation = float("nan")
    if len(values) > 1 and _is_constant(values):
        p, deviation = 1.0 if abs(values.mean()) < ROUNDING else p, 0.0
    elif len(values) > 1:
        test = ttest_1samp(values, 0)
        low, high = map(float, test.confidence_interval(LEVEL))
        p, deviation = float(test.pvalue), float(values.std(ddof=1))
    return SeedDifference(
        *(float(values.mean()), low, high, "t over seeds"),
        p=p,
        p_flip=sign_flip(values),
        least_p_flip=2 / 2 ** len(values) if len(values) <= MOST_EXACT else 1 / (FLIPS + 1),
        deviation=deviation,
        num_seeds=len(values),
    )


def _is_constant(values: Floats) -> bool:
    return bool(np.ptp(values) < ROUNDING)


def beats(differences: Sequence[float] | Floats) -> float:
    """The probability that the first way is better than the second for one new seed.

    It assumes that differences are normal around an unknown mean with an unknown deviation, and
    that the new seed is drawn as these were: the predictive t distribution with S - 1 degrees of
    freedom (Geisser 1993, Predictive Inference). NaN for one seed, or for equal differences.
    """
    from scipy.stats import t

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2 or _is_constant(values):
        return float("nan")
    scale = values.std(ddof=1) * math.sqrt(1 + 1 / len(values))
    return float(t.cdf(values.mean() / scale, len(values) - 1))


def equivalent(
    differences: Sequence[float] | Floats, margin: float, level: float = SIGNIFICANCE
) -> tuple[float, bool]:
    """Whether two ways differ by less than a margin, by two one-sided t tests, with its p-value.

    Both "it is at least the margin below" and "at least the margin above" have to be rejected
    (Schuirmann 1987). That no difference is shown says nothing of the kind. NaN and False for one
    seed, or for equal differences.
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2 or _is_constant(values):
        return float("nan"), False
    above = ttest_1samp(values, -margin, alternative="greater").pvalue
    below = ttest_1samp(values, margin, alternative="less").pvalue
    p = float(max(above, below))
    return p, p <= level


# --- several tests, and what a number of seeds can show


def holm(p_values: Sequence[float] | Floats) -> list[float]:
    """P-values adjusted for the size of their family (Holm 1979): below 5 % is significant.

    The family is all tests that were planned. One that has no p-value stays NaN and counts.
    """
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped, unused-ignore]

    values = np.asarray(p_values, dtype=np.float64)
    if not len(values):
        return []
    adjusted = multipletests(np.where(np.isnan(values), 1, values), method="holm")[1]
    return [float(x) for x in np.where(np.isnan(values), np.nan, adjusted)]


def power_of(
    difference: float,
    deviation: float,
    num_seeds: int,
    family: int = 1,
    level: float = SIGNIFICANCE,
) -> float:
    """How probably a paired t test over so many seeds finds a true difference.

    It has to reach level / family, the strictest step of Holm's. The square of t is noncentral F
    (Cohen 1988), which scipy knows to the last digits; its noncentral t is NaN far
    out, where the solver of statsmodels gives wrong answers without a word.

    Args:
        difference: the true difference, of either sign.
        deviation: the standard deviation of the differences between seeds; NaN, or 0, which is one
            that was not seen, gives NaN.
        num_seeds: paired seeds. With one nothing is ever found: 0.
        family: the number of tests that are planned.
        level: how often the family may flag anything where there is nothing.
    """
    from scipy.stats import ncf, t

    if num_seeds < 2:
        return 0.0
    if not deviation > 0:
        return float("nan")
    least = t.isf(level / family / 2, num_seeds - 1)
    noncentrality = num_seeds * (difference / deviation) ** 2
    noncentrality = max(noncentrality, 1e-12)  # at 0 itself scipy 1.17 is off by one
    return float(ncf.sf(least**2, 1, num_seeds - 1, noncentrality))


def detectable(
    deviation: float,
    num_seeds: int,
    family: int = 1,
    power: float = POWER,
    level: float = SIGNIFICANCE,
) -> float:
    """The smallest true difference that this design finds with the asked-for power.

    Infinite for one seed; NaN where the deviation is not known, or 0. Arguments as of `power_of`.
    """
    from scipy.optimize import brentq

    if num_seeds < 2:
        return float("inf")
    if not deviation > 0:
        return float("nan")
    most = 1.0
    while power_of(most, 1, num_seeds, family, level) < power:
        most *= 2
    found = brentq(lambda d: power_of(d, 1, num_seeds, family, level) - power, 0, most)
    return float(found) * deviation


def seeds_needed(
    deviation: float,
    target: float,
    family: int = 1,
    power: float = POWER,
    level: float = SIGNIFICANCE,
) -> int | None:
    """The least number of paired seeds that finds a difference of `target` with such a power.

    None where the deviation is not known, or 0, and where a million would not do.
    """
    if not deviation > 0 or not target:
        return None
    most = 2
    while power_of(target, deviation, most, family, level) < power:
        most *= 2
        if most > MOST_SEEDS:
            return None
    least = max(2, most // 2)  # too few, or 2
    while least < most:
        middle = (least + most) // 2
        enough = power_of(target, deviation, middle, family, level) >= power
        least, most = (least, middle) if enough else (middle + 1, most)
    return most


def sign_flip_seeds(family: int = 1, level: float = SIGNIFICANCE) -> int:
    """The least number of seeds with which the exact sign-flip test can be significant at all.

    Its p-value over n seeds is at least 2 / 2^n, which has to reach level / family.
    """
    num = 1
    while 2 / 2**num > level / family:
        num += 1
    return num


# --- where a score varies


@dataclass(frozen=True)
class Components:
    """Standard deviations of a score, by where they come from.

    Attributes:
        seeds: between seeds of pretraining, on these test images; without several probe seeds
            it holds what the probe adds.
        probes: between probe seeds of one pretraining; None without several.
        images: of one model's score, over test images drawn anew.
    """

    seeds: float
    probes: float | None
    images: float


def components(outcomes: Floats, groups: NDArray[np.integer] | None = None) -> Components:
    """The variance components of a score (Searle, Casella and McCulloch 1992, chapter 3).

    With several probe seeds the share of the probe is taken off what is seen between seeds, and
    what is left is never negative: 0 says that seeds differ no more than probes make them.
    Without them the two cannot be told apart, and `seeds` is their sum.

    Args:
        outcomes: one number per seed and test image, (S, N), or per seed, probe seed and test
            image, (S, K, N). One seed has NaN between seeds.
        groups: which test images belong together, (N,): they are then drawn anew as wholes, and
            the variance over images is that of a ratio of sums (Cochran 1977, Sampling
            Techniques, section 2.11).
    """
    values = np.asarray(outcomes, dtype=np.float64)
    values = values[:, None] if values.ndim == 2 else values
    num_seeds, num_probes, num_images = values.shape
    scores = values.mean(axis=2)
    nan = float("nan")
    sums, sizes = group_sums(values.reshape(-1, num_images), groups)
    num, apart = len(sizes), sums - scores.reshape(-1, 1) * sizes
    images = (apart**2).sum(axis=1).mean() * num / (num - 1) / num_images**2 if num > 1 else nan
    probes = scores.var(axis=1, ddof=1).mean() if num_probes > 1 else 0.0
    seeds = scores.mean(axis=1).var(ddof=1) - probes / num_probes if num_seeds > 1 else nan
    return Components(
        seeds=math.sqrt(max(seeds, 0.0)) if num_seeds > 1 else nan,
        probes=math.sqrt(probes) if num_probes > 1 else None,
        images=math.sqrt(images),
    )


def pairing_gain(scores: Sequence[float] | Floats, other: Sequence[float] | Floats) -> float:
    """How many times fewer seeds pairing needs: (var a + var b) / var(a - b) over seeds.

    1 where the seeds of two ways have nothing in common. NaN for one seed; infinite where the
    differences are all the same.
    """
    a, b = np.asarray(scores, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if len(a) < 2:
        return float("nan")
    apart = a.var(ddof=1) + b.var(ddof=1)
    if _is_constant(a - b):
        return float("inf") if apart > ROUNDING**2 else float("nan")
    return float(apart / (a - b).var(ddof=1))


def owen_spread(
    outcomes: Floats, groups: NDArray[np.integer] | None = None, resamples: int = RESAMPLES
) -> float:
    """The standard deviation of a mean over seeds and test images, both drawn anew.

    Seeds are drawn again, crossed with one draw of images that all seeds share: the pigeonhole
    bootstrap (Owen 2007, arXiv 0712.1111), which errs on the large side. A spread, no interval.

    Args:
        outcomes: one number, or difference, per seed and test image, (S, N).
        groups: which test images belong together, (N,).
        resamples: how often.

    Raises:
        ValueError: fewer than eight seeds.
    """
    num_seeds = len(outcomes)
    if num_seeds < LEAST_SEEDS_OF_SPREAD:
        raise ValueError(f"a spread over seeds needs {LEAST_SEEDS_OF_SPREAD}, not {num_seeds}")
    rng = np.random.default_rng(SEED)
    means = resampled_means(rng, outcomes, groups, resamples)
    counts = np.concatenate(list(resampled_counts(rng, num_seeds, resamples)))
    return float((means * counts).mean(axis=1).std(ddof=1))
