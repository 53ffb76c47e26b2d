"""What of a frozen encoder an evaluation reads, how it is scaled, and the options for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from torch import Tensor

from maebench import Model

T = TypeVar("T")
CONSTANT = 1e-6  # a deviation below it is constant in float32: nothing to scale


def not_empty(values: T) -> T:
    """Refuses a grid without a value; a bound on its length would name a wrong value twice."""
    if values is not None and not values:
        raise ValueError("at least one value is wanted")
    return values


# options that several evaluations have
Layer = Annotated[
    PositiveInt | None, Field(description="block to take features after; none: the end")
]
# Of updates, passes or images of an update: a billion take years, and more is a slip of the hand.
Count = Annotated[PositiveInt, Field(le=10**9)]
Penalties = Annotated[tuple[PositiveFloat, ...], AfterValidator(not_empty)]


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


def scaling(train: Tensor) -> Callable[[Tensor], Tensor]:
    """What gives features zero mean and unit deviation over train, for parts of others."""
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation < CONSTANT] = 1.0
    return lambda features: (features - mean) / deviation


def standardised(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Features with zero mean and unit deviation over train, the others by train's statistics."""
    scale = scaling(train)
    return [scale(part) for part in (train, *others)]
