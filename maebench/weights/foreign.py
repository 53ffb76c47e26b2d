"""Models that maebench did not train: what is known of them beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from maebench.data.preprocess import Preprocess
from maebench.weights.given import Given, pixels_of
from maebench.weights.verdict import Verdict


@dataclass(frozen=True)
class Foreign:
    """A model from elsewhere.

    Args:
        name: as in tables.
        module: holds the encoder as `.encoder`; reconstructs where `no_decoder` is empty.
        preprocess: what its images go through.
        verdict: how its weights fit.
        no_decoder: why it cannot reconstruct.
        facts: what besides its weights its numbers depend on, as JSON values.
    """

    name: str
    module: Any
    preprocess: Preprocess
    verdict: Verdict
    no_decoder: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def adapted(base: Preprocess, given: Given, spec: str) -> Preprocess:
    """The pre-processing with what the MODEL string gives in its place."""
    changes = {
        "mean": pixels_of(given.mean, base.channels, "mean", spec),
        "std": pixels_of(given.std, base.channels, "std", spec),
        "interpolation": given.interpolation,
        "crop": given.crop,
    }
    return replace(base, **{k: v for k, v in changes.items() if v is not None})
