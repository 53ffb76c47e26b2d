"""Retrieval: does a test image find those of its class, with nothing trained and nothing voted?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from maebench import ANY_KIND, Evaluation, Metric, Model, Result
from maebench_evals.frozen import Layer, pool_for
from maebench_evals.nearest import RANKING_SHARE, free, normalised, search

SIMILARITIES = 2**24  # held at a time on a CPU: 64 MB
FIRST = (1, 5, 10)  # of r1, r5, r10


class Retrieval(Evaluation):
    """Mean average precision over the whole gallery ranked by cosine similarity to a test image.

    map is scikit-learn's average precision of each query: equally similar images count as one step
    of the ranking, so that their order does not matter. r1, r5 and r10: is one of the first k of
    the query's class, by FAISS's exact search, ties as in knn. A query whose class is not in the
    gallery finds nothing: 0.
    """

    name: ClassVar[str] = "retrieval"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
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
        queries = normalised(model.features("test", self.layer, pool)).to(model.device)
        gallery = normalised(model.features(self.gallery, self.layer, pool)).to(model.device)
        others = self.gallery == "test"
        size = len(gallery) - others
        step = max(1, at_once(model.device) // len(gallery))
        starts = range(0, len(queries), step)
        precision, near = [], []
        for start in model.progress(starts, len(starts), f"retrieval of {model.kind}"):
            part, right = queries[start : start + step], labels[start : start + step]
            own = torch.arange(start, start + len(part)) if others else None
            found = nearest(gallery, part, min(FIRST[-1], size), own).cpu()
            near.append(classes[found] == right[:, None])
            similar_QN = part @ gallery.T
            if others:  # below all that a cosine can be
                similar_QN.diagonal(start).fill_(-torch.inf)
            precision.append(average_precisions(similar_QN, right, classes))
        hits_QK = torch.cat(near)
        where: dict[str, object] = {"pool": pool, "chosen": True}  # nothing to choose: the only row
        yield Result("map", torch.cat(precision), where)
        for k in FIRST:
            value: Tensor | None = hits_QK[:, :k].any(1).double()
            why = "" if k <= size else f"the gallery has {size} images"
            yield Result(f"r{k}", None if why else value, where, why)


def at_once(device: str) -> int:
    """Similarities that are held and sorted at a time."""
    if torch.device(device).type == "cpu":
        return SIMILARITIES
    return int(RANKING_SHARE * free(device)) // torch.float32.itemsize


def average_precisions(similar_QN: Tensor, right_Q: Tensor, classes_N: Tensor) -> Tensor:
    """`average_precision` of each query, float64 (Q,) on the CPU.

    Args:
        similar_QN: similarities; -inf is not in the gallery.
        right_Q: the class of each query.
        classes_N: the class of each image of the gallery.
    """
    if similar_QN.device.type != "cpu":
        return sorted_at_once(similar_QN, right_Q, classes_N).cpu()
    found = []
    for similar_N, label in zip(similar_QN.numpy(), right_Q.tolist(), strict=True):
        hit_N = (classes_N == label).numpy() & (similar_N > -torch.inf)
        found.append(average_precision(similar_N, hit_N))
    return torch.tensor(found, dtype=torch.float64)


def sorted_at_once(similar_QN: Tensor, right_Q: Tensor, classes_N: Tensor) -> Tensor:
    """The same for all queries together: on a GPU, where each of them alone would be waited for."""
    device, N = similar_QN.device, similar_QN.shape[1]
    similar_QN, order_QN = similar_QN.sort(dim=1)
    hit_QN = classes_N.to(device)[order_QN] == right_Q.to(device)[:, None]
    hit_QN &= similar_QN > -torch.inf
    # equally similar images count as one step: all that are at least as similar are above
    below_QN = torch.searchsorted(similar_QN, similar_QN)
    hits_below_QN = torch.nn.functional.pad(hit_QN.cumsum(1), (1, 0)).gather(1, below_QN)
    hits_Q = hit_QN.sum(1)
    share_QN = (hits_Q[:, None] - hits_below_QN).double() / (N - below_QN)
    return (share_QN * hit_QN).sum(1) / hits_Q.clamp(min=1)


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
    found, own = search(gallery, queries, k + 1)[0], own.to(queries.device)
    # the query itself moves to the end; of equal images another one may stand in its place
    order = (found == own[:, None]).int().argsort(dim=1, stable=True)
    return found.gather(1, order)[:, :k]
