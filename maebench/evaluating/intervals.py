"""How sure a mean over test examples is: its bootstrap interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000  # the ends of a 95 % interval then move by about 2 % of its width
SEED = 0  # an interval of the same values is the same interval
BATCH_NUMBERS = 4_000_000  # resampled at a time: 32 MB


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: NDArray[np.floating]) -> Interval:
    """The mean over test examples and its percentile bootstrap interval (Efron 1979).

    Args:
        values: one number per example, (N,). A single example has no interval: NaN ends.
    """
    from scipy.stats import bootstrap

    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_NUMBERS // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))
