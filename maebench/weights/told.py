"""What stands beside weights, read as what it should be: a file may say anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from maebench.errors import RunError
from maebench.weights.given import Given
from maebench.weights.read import OURS

EPS = 1e-6  # official code; a config.json that stands beside the weights says its own
Facts = Mapping[str, Any]


def whole(facts: Facts, place: str, key: str) -> int | None:
    """A whole number from 1 of the facts, None where they do not say it.

    Raises:
        RunError: it is something else.
    """
    value = facts.get(place, {}).get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise RunError(f"{key} beside the weights is {value!r}: a whole number from 1 is wanted")
    return value


def size_of(facts: Facts) -> tuple[int, int] | None:
    """Rows and columns of the images that the weights take."""
    for place in (OURS, "config"):
        value = facts.get(place, {}).get("image_size")
        if value is not None:
            sides = value if isinstance(value, list | tuple) else [value, value]
            if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
                raise RunError(f"image_size beside the weights is {value!r}: a side or two wanted")
            return sides[0], sides[1]
    return None


def heads_told(facts: Facts, ours: str, theirs: str) -> int | None:
    """The number of heads that an export of ours or a config.json says."""
    return whole(facts, OURS, ours) or whole(facts, "config", theirs)


def eps_of(facts: Facts, given: Given) -> float:
    """The norms' epsilon."""
    told = facts.get("config", {}).get("layer_norm_eps", EPS)
    if not isinstance(told, float | int) or not 0 < told < 1:
        raise RunError(f"layer_norm_eps beside the weights is {told!r}: between 0 and 1 is wanted")
    return given.eps or float(told)


def colours(facts: Facts, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation per channel that an export of ours says."""
    found = [facts.get(OURS, {}).get(key) for key in ("mean", "std")]
    if None in found:
        return None
    for values in found:
        numbers = isinstance(values, list | tuple) and len(values) == channels
        if not numbers or not all(isinstance(v, float) and math.isfinite(v) for v in values):
            raise RunError(
                f"mean or std beside the weights is {values!r}: {channels} numbers wanted"
            )
    return tuple(found[0]), tuple(found[1])


def target_of(facts: Facts, given: Given) -> Any:
    """What the decoder predicts: given, or said beside the weights; None where nobody says."""
    told = facts.get(OURS, {}).get("target")
    if given.target is not None or told in ("pixels", "normalised-pixels"):
        return given.target or told
    for place in ("args", "config"):
        normalised = facts.get(place, {}).get("norm_pix_loss")
        if isinstance(normalised, bool):
            return "normalised-pixels" if normalised else "pixels"
    return None
