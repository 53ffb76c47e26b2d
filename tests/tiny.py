"""A run that takes a fraction of a second, for tests of what comes after pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes import names

from maebench import RunConfig
from maebench.encoders import ViTNano
from maebench.models import LoadedModel, load_model
from maebench.pretrain import Plan, prepare, pretrain

SETTINGS: dict[str, Any] = {
    "encoder": ViTNano(width=16, depth=2, heads=2),
    "limit": 60,
    "batch": 16,
    "budget": "steps=3",
    "device": "cpu",
}


def config(**changes: Any) -> RunConfig:
    """Three steps of a tiny encoder on sixty digits."""
    return RunConfig(names(), **{**SETTINGS, **changes})


def plan(results: Path, **changes: Any) -> Plan:
    """A finished run."""
    made = prepare(config(**changes), results)
    for _ in pretrain(made):
        pass
    return made


def load(results: Path, spec: str = "") -> LoadedModel:
    """A model by its name."""
    return load_model(spec, results, "cpu", names())
