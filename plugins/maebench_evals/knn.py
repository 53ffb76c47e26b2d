"""k nearest neighbours: are images of a class close together, with nothing trained?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from maebench import Evaluation, MaebenchError, Metric, Model, Result
from maebench_evals.frozen import pool_for

if TYPE_CHECKING:
    from torch import Tensor

QUERIES = 1024  # searched at a time, so that memory is bounded


class KNN(Evaluation):
    """Majority vote of the k nearest training images by cosine similarity, k chosen on train.

    Exact search by FAISS's flat inner product over normalised features, for all k at once. Ties:
    of equally similar images found, the first in train is nearer; of equally many votes
    the class whose nearest voter is nearest wins.
    """

    name: ClassVar[str] = "knn"
    version: ClassVar[int] = 2  # rows name the pooling that was used
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric("share of test images given their class", "%", True, 0, 1, True, True),
        "validation_top1": Metric(
            "the same on the part of train that k is chosen on", "%", True, 0, 1, False
        ),
    }

    k: tuple[PositiveInt, ...] = Field(
        (1, 5, 10, 20, 50), description="numbers of neighbours to try", examples=[(1,), (3, 7)]
    )
    pool: Literal["mean", "cls"] | None = Field(
        None, description="which token is the feature; none: the mean of the patches"
    )
    layer: PositiveInt | None = Field(
        None, description="block to take features after; none: the end"
    )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the whole grid of k, the one chosen on train marked."""
        labels = model.labels("train")
        pool = pool_for(model, self.pool, "mean")
        train = normalised(model.features("train", self.layer, pool))
        test = normalised(model.features("test", self.layer, pool))
        right = model.labels("test")
        fit, held = model.holdout()
        ks = usable(self.k, len(fit), model.name)

        votes = votes_for(train[fit], labels[fit], train[held], ks)
        validation = {k: (votes[k] == labels[held]).double().mean().item() for k in ks}
        chosen = max(ks, key=lambda k: (validation[k], -k))  # of equals the smallest k
        votes = votes_for(train, labels, test, ks)
        for k in ks:
            where = {"k": k, "pool": pool}
            if k == chosen:  # a single neighbour is no edge: there are not fewer
                where |= {"chosen": True} | ({"edge": True} if len(ks) > 1 and k == ks[-1] else {})
            yield Result("validation_top1", validation[k], where)
            yield Result("top1", (votes[k] == right).double(), where)


def usable(ks: tuple[int, ...], images: int, name: str) -> list[int]:
    """The k in ascending order, each once.

    Raises:
        MaebenchError: one is larger than the number of training images to vote.
    """
    found = sorted(set(ks))
    if not found or found[-1] > images:
        raise MaebenchError(f"knn.k: {list(ks)} for {name}: 1 to {images} training images can vote")
    return found


def normalised(features: Tensor) -> Tensor:
    """Features of length 1; a zero vector stays zero."""
    import torch

    return torch.nn.functional.normalize(features, dim=1).contiguous()


def votes_for(bank: Tensor, labels: Tensor, queries: Tensor, ks: list[int]) -> dict[int, Tensor]:
    """The class each query is given for each k, from one search."""
    import torch

    ordered = sorted(ks)
    parts = [vote(labels[search(bank, q, ordered[-1])], ordered) for q in queries.split(QUERIES)]
    return {k: torch.cat([part[k] for part in parts]) for k in ordered}


def vote(neighbours: Tensor, ks: list[int]) -> dict[int, Tensor]:
    """The class that wins among the first k neighbours (Q, K, nearest first), for each k."""
    import torch

    queries, most = neighbours.shape
    classes = int(neighbours.max()) + 1
    rank = torch.arange(most).expand(queries, most)
    found = {}
    for k in ks:
        voters, none = neighbours[:, :k], torch.zeros(queries, classes)
        count = none.scatter_add(1, voters, torch.ones(queries, k))
        first = (none + k).scatter_reduce(1, voters, rank[:, :k].float(), "amin")
        # the nearest voter of each class breaks ties: rank / (k + 1) is below one vote
        found[k] = (count - first / (k + 1)).argmax(1)
    return found


def search(bank: Tensor, queries: Tensor, k: int) -> Tensor:
    """Positions of the k most similar in the bank, most similar first, int64 (Q, k).

    FAISS breaks exact ties as it likes, so similarities are ordered again with the position.
    """
    import torch

    try:
        import faiss
    except ImportError as error:
        raise MaebenchError(
            "the knn evaluation needs FAISS: pip install 'maebench[cpu]' (or 'maebench[gpu]')"
        ) from error
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.numpy())
    similarity, position = index.search(queries.numpy(), k)
    place = torch.from_numpy(position)
    order = place.argsort(dim=1, stable=True)
    ordered = torch.from_numpy(similarity).gather(1, order)
    return place.gather(1, order.gather(1, ordered.argsort(dim=1, descending=True, stable=True)))
