"""A task for frozen features: is the mean of its own class the nearest one?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from maebench import Evaluation, Metric, Model, Result, hookimpl


class NearestMean(Evaluation):
    """Gives each test image the class whose mean feature in train is nearest."""

    name: ClassVar[str] = "nearest-mean"
    # help, unit, higher is better, least, most, one number per test image, the main metric
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric("share of test images given their class", "%", True, 0, 1, True, True),
    }
    pool: Literal["mean", "cls"] = Field("mean", description="which token is the feature")

    def run(self, model: Model) -> Iterator[Result]:
        """Yields what was measured; means, intervals and tests are made by maebench."""
        import torch

        # Frozen features, float32 (N, D). Only the splits in `splits` can be asked for.
        train, test = (model.features(split, pool=self.pool) for split in ("train", "test"))
        # Without labels this raises NotApplicable, which becomes a row that says so.
        labels, right = model.labels("train"), model.labels("test")
        classes = labels.unique()
        means = torch.stack([train[labels == c].mean(0) for c in classes])
        given = classes[torch.cdist(test, means).argmin(1)]
        # One number for each test image: was it right? So that differences can be paired.
        yield Result("top1", (given == right).double())


@hookimpl
def register_evaluations() -> list[type[Evaluation]]:
    """What this package brings; maebench asks when it starts."""
    return [NearestMean]
