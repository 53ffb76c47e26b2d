"""How what differs from a recipe is written; a module that imports no torch, so tables read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def differing(overrides: Mapping[str, Iterable[Any]]) -> list[str]:
    """Differences as texts, such as "ratio: recipe 0.75, given 0.5"."""
    return [
        f"{setting}: recipe {as_typed(said)}, given {as_typed(given)}"
        for setting, (said, given) in overrides.items()
    ]


def as_typed(value: Any) -> str:
    """A JSON value as one would type it."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ",".join(map(as_typed, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)
