"""Retrieval: does a test image find those of its class, with nothing trained and nothing voted?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from maebench import Evaluation, Metric, Model, Result
from maebench_evals.frozen import Layer, pool_for
from maebench_evals.knn import normalised, search

SIMILARITIES = 2**24  # held at a time: 64 MB
FIRST = (1, 5, 10)  # of r1, r5, r10


class Retrieval(Evaluation):
    """Mean average precision over the whole gallery ranked by cosine similarity to a test image.

    map is scikit-learn's average precision of each query: equally similar images count as one step
    of the ranking, so that their order does not matter. r1, r5 and r10: is one of the first k of
    the query's class, by FAISS's exact search, ties as in knn. A query whose class is not in the
    gallery finds nothing: 0.
    """

    name: ClassVar[str] = "retrieval"
    metrics: ClassVar[dict[str, Metric]] = {
        "map": Metric(
            help="average precision of a query's ranking", unit="%", low=0, high=1, main=True
        ),
        "r1": Metric.accuracy("share of queries whose nearest image is of their class", main=False),
        "r5": Metric.accuracy("share with one of their class among the first 5", main=False),
        "r10": Metric.accuracy("share with one of their class among the first 10", main=False),
    }

    gallery: Literal["train", "test"] = Field(
        default="train",
        description="images to rank; test: the other test images, the query left out",
    )
    pool: Literal["mean", "cls"] | None = Field(
        default=None, description="which token is the feature; none: the mean of the patches"
    )
    layer: Layer = None

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the metrics of all queries."""
        labels, classes = model.labels("test"), model.labels(self.gallery)
        pool = pool_for(model, self.pool, "mean")
        queries = normalised(model.features("test", self.layer, pool))
        gallery = normalised(model.features(self.gallery, self.layer, pool))
        others = self.gallery == "test"
        size = len(gallery) - others
        step = max(1, SIMILARITIES // len(gallery))
        starts = range(0, len(queries), step)
        precision, near = [], []
        for start in model.progress(starts, len(starts), f"retrieval of {model.kind}"):
            part, right = queries[start : start + step], labels[start : start + step]
            own = torch.arange(start, start + len(part)) if others else None
            near.append(
                classes[nearest(gallery, part, min(FIRST[-1], size), own)] == right[:, None]
            )
            similar_QN = part @ gallery.T
            if others:  # below all that a cosine can be
                similar_QN.diagonal(start).fill_(-torch.inf)
            for similar_N, label in zip(similar_QN.numpy(), right.tolist(), strict=True):
                hit_N = (classes == label).numpy() & (similar_N > -torch.inf)
                precision.append(average_precision(similar_N, hit_N))
        hits_QK = torch.cat(near)
        where: dict[str, object] = {"pool": pool, "chosen": True}  # nothing to choose: the only row
        yield Result("map", torch.tensor(precision, dtype=torch.float64), where)
        for k in FIRST:
            value: Tensor | None = hits_QK[:, :k].any(1).double()
            why = "" if k <= size else f"the gallery has {size} images"
            yield Result(f"r{k}", None if why else value, where, why)


def average_precision(similar_N: NDArray[np.float32], hit_N: NDArray[np.bool_]) -> float:
    """Mean over the hits of the share of hits among all that are at least as similar; 0 of none.

    Sorting values and looking ranks up takes 2.7 ms for 60,000 images on one core. An argsort takes
    10, and FAISS, made for a few neighbours, 20 to give the whole ranking.
    """
    if not hit_N.any():
        return 0.0
    every, hits = np.sort(similar_N), np.sort(similar_N[hit_N])
    above = len(every) - np.searchsorted(every, hits)
    hits_above = len(hits) - np.searchsorted(hits, hits)
    return float((hits_above / above).mean())


def nearest(gallery: Tensor, queries: Tensor, k: int, own: Tensor | None) -> Tensor:
    """Positions of the k most similar by FAISS's exact search, int64 (Q, k), the nearest first.

    `own` gives each query's place in the gallery, which is left out.
    """
    if own is None:
        return search(gallery, queries, k)[0]
    found, _ = search(gallery, queries, k + 1)
    # the query itself moves to the end; of equal images another one may stand in its place
    order = (found == own[:, None]).int().argsort(dim=1, stable=True)
    return found.gather(1, order)[:, :k]
