"""Do unlabelled clusters of features coincide with classes?"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from sklearn.cluster import KMeans

from maebench import Evaluation, Metric, Model, Result, hookimpl


class ClusterVote(Evaluation):
    """Gives a test image the commonest class among the training images of its k-means cluster."""

    name: ClassVar[str] = "cluster-vote"
    metrics: ClassVar[dict[str, Metric]] = {"top1": Metric.accuracy()}
    per_class: int = Field(default=2, ge=1, le=20, description="number of clusters per class")

    def run(self, model: Model) -> Iterator[Result]:
        """Yields one number per test image; labels only name the clusters."""
        pool = model.pools()[0]
        train, test = (model.features(split, pool=pool).numpy() for split in ("train", "test"))
        labels, classes = model.labels("train"), len(model.class_names())
        seed = int(model.draws("k-means").integers(2**31, 1))
        clusters = min(self.per_class * classes, len(train))
        found = KMeans(clusters, n_init=4, random_state=seed).fit(train)
        votes = torch.zeros(clusters, classes)
        votes.index_put_((torch.from_numpy(found.labels_).long(), labels), torch.ones(1), True)
        predicted = votes.argmax(1)[torch.from_numpy(found.predict(test)).long()]
        yield Result("top1", (predicted == model.labels("test")).double())


@hookimpl
def register_evaluations() -> list[type[Evaluation]]:
    """The task."""
    return [ClusterVote]
