"""A task for frozen features: is the mean of its own class the nearest one?"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field

from maebench import Evaluation, Metric, Model, Result, hookimpl


class NearestMean(Evaluation):
    """Gives each test image the class whose mean feature in train is nearest."""

    name: ClassVar[str] = "nearest-mean"
    # One metric is the main one. Another than a share of right answers says unit, range and
    # direction: Metric(help="...", unit="dB", low=0, higher_is_better=True, main=True)
    metrics: ClassVar[dict[str, Metric]] = {"top1": Metric.accuracy()}
    pool: Literal["mean", "cls"] = Field(default="mean", description="which token is the feature")

    def run(self, model: Model) -> Iterator[Result]:
        """Yields what was measured; means, intervals and tests are made by maebench."""
        # Frozen features, float32 (N, D). Only the splits in `splits` can be asked for.
        train, test = (model.features(split, pool=self.pool) for split in ("train", "test"))
        # Without labels this raises NotApplicable, which becomes a row that says so.
        labels, truth = model.labels("train"), model.labels("test")
        classes = labels.unique()
        means = torch.stack([train[labels == c].mean(0) for c in classes])
        predicted = classes[torch.cdist(test, means).argmin(1)]
        # One number for each test image: was it right? So that differences can be paired.
        yield Result("top1", (predicted == truth).double())


@hookimpl
def register_evaluations() -> list[type[Evaluation]]:
    """What this package brings; maebench asks when it starts."""
    return [NearestMean]
