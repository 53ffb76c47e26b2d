"""k nearest neighbours: are images of a class close together, with nothing trained?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from maebench import (
    ANY_KIND,
    Evaluation,
    MaebenchError,
    Metric,
    Model,
    NotApplicable,
    Result,
    choose,
)
from maebench_evals.frozen import Layer, pool_for
from maebench_evals.nearest import all_neighbours

VOTERS = 1024  # queries whose votes are counted at a time
GUESSES = 5  # of top5; not asked of fewer than six classes, where five guesses can hardly be wrong
# dino: arXiv 2104.14294, and eval_knn.py of the official code, which finds 20 the best mostly
TEMPERATURE = 0.07  # there too
PROTOCOLS = {"majority": (1, 5, 10, 20, 50), "dino": (10, 20, 100, 200)}


class KNN(Evaluation):
    """Vote of the k nearest training images by cosine similarity, k chosen on train.

    Exact search by FAISS's inner products of normalised features, once for all k. Majority:
    one vote each. dino: the class token, and exp(similarity / temperature) for a vote. Ties: of
    equally similar images found the first in train is nearer; of equally strong classes the one
    whose nearest voter is nearest wins. A class without a voter is no guess.
    """

    name: ClassVar[str] = "knn"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    # 2: rows name the pooling that was used
    # 3: k is chosen on folds of train instead of a tenth
    version: ClassVar[int] = 3
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy(),
        "top5": Metric.accuracy("share whose class is among the five strongest", main=False),
        "validation_top1": Metric.accuracy(
            "top-1 on the images held out of train, by which k is chosen", held_out=True
        ),
    }

    # the contract tries the protocol in which every option counts
    example: ClassVar[dict[str, object]] = {"protocol": "dino"}

    protocol: Literal["majority", "dino"] = Field(
        default="majority",
        description="how neighbours vote; dino: weighted by similarity, class token",
    )
    k: tuple[PositiveInt, ...] | None = Field(
        default=None,
        description="numbers of neighbours to try; none: 1,5,10,20,50, and 10,20,100,200 of dino",
        examples=[(1,), (3, 7)],
    )
    temperature: PositiveFloat | None = Field(
        default=None, description="of dino's votes exp(similarity / temperature); none: 0.07"
    )
    pool: Literal["mean", "cls"] | None = Field(
        default=None,
        description="which token is the feature; none: the mean of the patches, dino's class token",
    )
    layer: Layer = None

    @model_validator(mode="after")
    def _no_option_without_effect(self) -> Self:
        if self.temperature is not None and self.protocol != "dino":
            raise ValueError(
                f"temperature={self.temperature:g} weighs the votes of -o knn.protocol=dino; in a "
                f"{self.protocol} vote all count the same"
            )
        return self

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the whole grid of k, the one chosen on train marked."""
        labels, right = model.labels("train"), model.labels("test")
        dino = self.protocol == "dino"
        pool = pool_for(model, self.pool, "cls" if dino else "mean")
        folds = model.folds()
        voters = int((~folds.held).sum(1).min())
        ks, dropped = self._usable(voters, model.name)
        train = model.features("train", self.layer, pool)
        test = model.features("test", self.layer, pool)
        temperature = (self.temperature or TEMPERATURE) if dino else None

        def right_of(fit: Tensor, held: Tensor) -> Tensor:
            votes = votes_for(train, labels, train, ks, temperature, fit, held, model.device)
            return torch.stack([votes[k][:, 0] == labels[held] for k in ks])

        validation = folds.outcomes(right_of)
        choice = choose(validation, edges(ks, validation.mean(1).tolist()))
        votes = votes_for(train, labels, test, ks, temperature, device=model.device)
        classes = len(model.class_names())
        for i, k in enumerate(ks):
            where: dict[str, object] = {"k": k, "pool": pool, **choice.where(i)}
            hit = votes[k] == right[:, None]
            yield Result("validation_top1", validation[i], where)
            yield Result("top1", hit[:, 0].double(), where)
            if classes > GUESSES:
                yield Result("top5", hit.any(1).double(), where)
        if classes <= GUESSES:
            why = f"of {classes} classes five guesses can hardly miss one"
            yield Result("top5", None, {"pool": pool}, why)
        for k in dropped:
            why = f"k={k}: only {voters} training images can vote"
            yield Result("top1", None, {"k": k, "pool": pool}, why)

    def _usable(self, images: int, name: str) -> tuple[list[int], list[int]]:
        """The k in ascending order, each once, and those of the protocol's own that do not fit.

        Raises:
            MaebenchError: one that was asked for is larger than the number of images to vote.
            NotApplicable: all of the protocol's own are.
        """
        ks = sorted(set(PROTOCOLS[self.protocol] if self.k is None else self.k))
        if self.k is not None and (not ks or ks[-1] > images):
            raise MaebenchError(
                f"-o knn.k={','.join(map(str, self.k))} for {name}: 1 to {images} training images "
                "can vote"
            )
        if ks[0] > images:
            raise NotApplicable(f"only {images} training images can vote, the least k is {ks[0]}")
        return [k for k in ks if k <= images], [k for k in ks if k > images]


def edges(ks: list[int], validation: list[float]) -> list[bool]:
    """Beyond which k another might be better that was not tried.

    Not below one neighbour, and not below a smallest k that is no better than the next.
    """
    if len(ks) == 1:
        return [False]
    low = ks[0] > 1 and validation[0] > validation[1]
    return [low, *[False] * (len(ks) - 2), True]


def votes_for(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    ks: list[int],
    temperature: float | None = None,
    of_bank: Tensor | None = None,
    of_queries: Tensor | None = None,
    device: str = "cpu",
) -> dict[int, Tensor]:
    """The five strongest classes of each query for each k, int64 (Q, 5), from one search.

    Args:
        bank: features of the images that vote, of any length, float32 (N, D).
        labels: their classes, int64 (N,).
        queries: features of the others, float32 (Q, D).
        ks: numbers of neighbours to let vote.
        temperature: see `vote`.
        of_bank: positions of those that vote, ascending, where it is not all of them.
        of_queries: positions of those that are asked, where it is not all.
        device: where to search.
    """
    ordered = sorted(ks)
    asked = torch.arange(len(queries)) if of_queries is None else of_queries
    voters = torch.arange(len(bank)) if of_bank is None else of_bank
    parts: list[dict[int, Tensor]] = []
    for place, similarity in all_neighbours(bank, voters, queries, asked, ordered[-1], device):
        for few, how in zip(place.split(VOTERS), similarity.split(VOTERS), strict=True):
            parts.append(vote(labels[few], how, ordered, temperature))
    return {k: torch.cat([part[k] for part in parts]) for k in ordered}


def vote(
    neighbours: Tensor, similarity: Tensor, ks: list[int], temperature: float | None = None
) -> dict[int, Tensor]:
    """The strongest classes among the first k neighbours, for each k.

    Args:
        neighbours: classes of the neighbours, nearest first, int64 (Q, K).
        similarity: their similarities, float32 (Q, K).
        ks: numbers of neighbours to let vote.
        temperature: of weights exp(similarity / temperature); None gives each one vote.

    Returns:
        For each k, int64 (Q, 5), the strongest first, -1 where no class is left with a voter.
    """
    queries, most = neighbours.shape
    none = torch.zeros(queries, max(int(neighbours.max()) + 1, GUESSES), dtype=torch.float64)
    weight = torch.ones_like(similarity, dtype=torch.float64)
    if temperature is not None:
        # over the nearest one's: the ranking stays, and no temperature overflows
        weight = ((similarity.double() - similarity[:, :1]) / temperature).exp()
    rank = torch.arange(most, dtype=torch.float64).expand(queries, most)
    found = {}
    for k in ks:
        voters = neighbours[:, :k]
        score = none.scatter_add(1, voters, weight[:, :k])
        first = (none + k).scatter_reduce(1, voters, rank[:, :k], "amin")
        order = first.argsort(dim=1, stable=True)  # of equal scores the nearest voter's class
        score, by_score = score.gather(1, order).sort(dim=1, descending=True, stable=True)
        best = order.gather(1, by_score)[:, :GUESSES]
        found[k] = best.masked_fill(score[:, :GUESSES] == 0, -1)
    return found
