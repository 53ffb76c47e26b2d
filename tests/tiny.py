"""A run that takes a fraction of a second, for tests of what comes after pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fakes import names

from maebench import Evaluation, Metric, Result, RunConfig
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


METRICS = {
    "score": Metric("a share", "%", True, 0, 1, True, True),
    "plain": Metric("a number", "", False, None, None, False),
}


def evaluation(
    does: Callable[[Any], Any],
    called: str = "fake",
    metrics: Mapping[str, Metric] = METRICS,
    splits: Sequence[str] = ("train", "test"),
) -> Evaluation:
    """An evaluation that does what a function does."""
    declared, touched = metrics, splits

    class Fake(Evaluation):
        """A fake."""

        name: ClassVar[str] = called
        metrics: ClassVar[Mapping[str, Metric]] = declared
        splits: ClassVar[Sequence[str]] = touched

        def run(self, model: Any) -> Any:
            return does(model)

    return Fake()


def yields(*results: Result) -> Callable[[Any], Any]:
    """What an evaluation does that gives these results."""
    return lambda model: iter(results)
