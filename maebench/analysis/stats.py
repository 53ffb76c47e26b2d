"""How sure a difference is: paired over test examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maebench.evaluating.intervals import Interval, mean_interval


def paired_difference(
    ids: NDArray[np.integer],
    values: NDArray[np.floating],
    other_ids: NDArray[np.integer],
    other: NDArray[np.floating],
) -> Interval:
    """The mean difference on the same test examples, matched by image id, with its interval.

    Raises:
        ValueError: the examples are not the same.
    """
    order, other_order = np.argsort(ids), np.argsort(other_ids)
    if not np.array_equal(ids[order], other_ids[other_order]):
        raise ValueError("the two models were not tested on the same images")
    return mean_interval(values[order] - other[other_order])
