"""A run that takes a fraction of a second, for tests of what comes after pretraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from fakes import names
from torch import Tensor

from maebench import Draws, Evaluation, Folds, Metric, Result, RunConfig
from maebench.encoders import TextNano, ViTNano
from maebench.evaluating.partial import part_of
from maebench.models.load import load_model
from maebench.models.model import LoadedModel
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import Plan, prepare

SETTINGS: dict[str, Any] = {
    "encoder": ViTNano(width=16, depth=2, heads=2),
    "limit": 60,
    "batch": 16,
    "budget": "steps=3",
    "device": "cpu",
}


def suited(objective: str) -> dict[str, Any]:
    """Settings of an objective; of one that takes text alone with a data set and an encoder."""
    if "images" in names().table["objective"][objective].takes or objective == "supervised":
        return {"objective": objective}
    dataset = {"name": "pydoc", "length": 16, "vocabulary": 600}
    encoder = TextNano(width=16, depth=2, heads=2)
    return {"objective": objective, "dataset": dataset, "encoder": encoder, "limit": 100}


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
    "score": Metric.accuracy("a share"),
    "plain": Metric(help="a number", higher_is_better=False, per_example=False),
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


class Stub:
    """A model made of features and labels, for evaluations that need no more."""

    name = kind = "stub"
    device = "cpu"

    def __init__(self, train: Tensor, labels: Tensor, test: Tensor, right: Tensor) -> None:
        self._features = {"train": train, "test": test}
        self._labels = {"train": labels, "test": right}

    def features(self, split: str, layer: int | None = None, pool: str = "mean") -> Tensor:
        return self._features[split]

    def labels(self, split: str) -> Tensor:
        return self._labels[split]

    def pools(self) -> tuple[str, ...]:
        return ("mean",)

    def depth(self) -> int:
        return 0

    def class_names(self) -> tuple[str, ...]:
        return tuple(map(str, range(int(self._labels["train"].max()) + 1)))

    def folds(self, index: Tensor | None = None, purpose: str = "folds") -> Folds:
        labels = self._labels["train"]
        return Folds.of(labels if index is None else labels[index], 0, purpose)

    def draws(self, purpose: str) -> Draws:
        return Draws(0, purpose, torch.zeros(1, dtype=torch.int64))

    def progress(self, steps: Any, total: int, what: str) -> Any:
        return steps

    def partial(self, what: str = "") -> Any:
        return part_of(Path(), "", what, "cpu")


def digits(train: int | None = None) -> Stub:
    """The pixels of digits, all or so many to train on, standardised as one."""
    splits = config(limit=None).splits()
    parts = []
    for split in ("train", "test"):
        images = splits.load(split)
        pixels = torch.cat(list(images.whole(512))).flatten(1).float()
        parts += [pixels / 255, images.info.labels]
    return Stub(parts[0][:train], parts[1][:train], *parts[2:])
