"""What of an encoder an evaluation reads, how it is scaled, and in which parts it is computed."""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

from maebench import Model

T = TypeVar("T")
PART = 256  # images that are cropped and encoded at a time: under a gigabyte at 224 pixels
CONSTANT = 1e-6  # a deviation below it is constant in float32: nothing to scale


def pool_for(model: Model, asked: str | None, preferred: str) -> str:
    """The pooling to use: what is asked for, else the protocol's own, else the model's first.

    A protocol's class token is not to be had of a convolutional network or of raw pixels: their
    own pooling stands in, and the rows say which it was. What was asked for by name and is not
    there is refused where the features are read; raw pixels have one pooling only.
    """
    there = model.pools()
    if there == ("flat",):
        return "flat"
    if asked is not None:
        return asked
    return preferred if preferred in there else there[0]


def standardised(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Features with zero mean and unit deviation over train, the others by train's statistics."""
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation < CONSTANT] = 1.0
    return [(part - mean) / deviation for part in (train, *others)]


def not_empty(values: T) -> T:
    """Refuses a grid without a value; a bound on its length would tell of a wrong value twice."""
    if values is not None and not values:
        raise ValueError("at least one value is wanted")
    return values


def split_batch(batch: int, multiple: int = 1) -> tuple[int, int]:
    """A batch as equal parts of at most PART images: how many, and how large.

    Rounded down to equal parts; what that leaves out comes in the next batch.

    >>> split_batch(16384), split_batch(1437), split_batch(60)
    ((64, 256), (6, 239), (1, 60))
    """
    parts = math.ceil(batch / PART)
    return parts, max(multiple, batch // parts // multiple * multiple)
