"""How a batch too large for memory is computed: in equal parts, for one update."""

from __future__ import annotations

import math

PART = 256  # images that are cropped and encoded at a time: under a gigabyte at 224 pixels


def split_batch(batch: int, multiple: int = 1) -> tuple[int, int]:
    """A batch as equal parts of at most PART images: how many, and how large.

    Rounded down to equal parts; what that leaves out comes in the next batch.

    >>> split_batch(16384), split_batch(1437), split_batch(60)
    ((64, 256), (6, 239), (1, 60))
    """
    parts = math.ceil(batch / PART)
    return parts, max(multiple, batch // parts // multiple * multiple)
