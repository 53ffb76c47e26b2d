"""Geometry of features: in how many directions they spread, and how near two views of an image lie.

N samples, D width, V views of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from maebench import ANY_KIND, Evaluation, Metric, Model, Result
from maebench_evals.frozen import Layer, pool_for

SAMPLES = 10_000  # RankMe is stable from there (arXiv 2210.02885, appendix)
EPSILON = 1e-7  # of a share in the entropy of RankMe and of LiDAR, there
WITHIN = 1e-4  # LiDAR's delta, added to the scatter within samples (arXiv 2312.04000, section 4)
LIDAR_SAMPLES = 1000  # there, appendix
WIDEST = 8192  # of LiDAR, whose three squares then take 1.6 GB
FIRST, LAST = 4, 100  # ranks between which alpha is fitted: alpha-ReQ's code, stringer_get_powerlaw
COLUMNS = 4096  # that are multiplied at a time, so that a float64 copy of all is never there
PAIRED = 2048  # samples of which all pairs are taken: two million
SHARPNESS, POWER = 2.0, 2.0  # t and alpha of Wang and Isola 2020, arXiv 2005.10242
BATCH = 256  # crops that are encoded at a time
FLAT = "there are no crops of what is no image"
ALIKE = "all crops of an image are alike: this data set neither crops nor flips"


class Geometry(Evaluation):
    """How rich features are, without labels and without training anything.

    rankme is e to the entropy of the singular values of the features (Garrido et al. 2022, arXiv
    2210.02885, equation 1), effective_rank that of the centred ones (Roy and Vetterli 2007). alpha
    is the power by which the variance falls over directions 4 to 100 (Agrawal et al. 2022,
    alpha-ReQ, and its code). lidar is the rank of what tells samples apart from crops of one sample
    (Thilak et al. 2023, arXiv 2312.04000). On features of length 1, uniformity is the log of the
    mean of e^(-2 |x - y|^2) over pairs of samples, alignment the mean of |x - y|^2 over pairs of
    crops of one sample (Wang and Isola 2020, arXiv 2005.10242); crops are those that suit the data
    set.

    A rank is at most the width and the number of samples, which `where` states: compare at equal
    numbers, and on the same images.
    """

    name: ClassVar[str] = "geometry"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    splits: ClassVar[tuple[str, ...]] = ("test",)
    metrics: ClassVar[dict[str, Metric]] = {
        "rankme": Metric(
            help="directions that features use (RankMe)", low=1, per_example=False, main=True
        ),
        "effective_rank": Metric(
            help="directions that centred features use", low=1, per_example=False
        ),
        "alpha": Metric(
            help="power by which variance falls from direction to direction; 1 is said to be best",
            higher_is_better=False,
            per_example=False,
        ),
        "lidar": Metric(
            help="directions that tell samples apart, not crops of one", low=1, per_example=False
        ),
        "uniformity": Metric(
            help="log of how near samples lie to each other, on the sphere",
            higher_is_better=False,
            high=0,
            per_example=False,
        ),
        "alignment": Metric(
            help="squared distance of two crops of a sample, on the sphere",
            higher_is_better=False,
            low=0,
            high=4,
            per_example=False,
        ),
    }

    samples: PositiveInt = Field(
        default=SAMPLES, ge=2, description="test images, the first of an order by the seed"
    )
    views: PositiveInt = Field(
        default=10,
        ge=2,
        le=1000,  # LiDAR's paper takes 50 (arXiv 2312.04000)
        description="crops of each image for lidar; the first two for alignment",
    )
    layer: Layer = None
    pool: Literal["mean", "cls"] | None = Field(
        default=None, description="pooling; none: the model's first"
    )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the ranks, the decay, and what crops tell."""
        pool = pool_for(model, self.pool, model.pools()[0])
        order = model.draws("geometry", model.images("test").info.ids).uniform().argsort()
        features = model.features("test", self.layer, pool)[order[: self.samples]]
        where = {"samples": len(features), "pool": pool}
        yield Result("rankme", entropy_rank(singular(features)), where | {"chosen": True})
        spread = singular(features - features.mean(0, dtype=torch.float64).float())
        yield Result("effective_rank", entropy_rank(spread, 0.0), where)
        alpha = decay(spread.square())
        few = f"features lie in fewer than {FIRST + 1} directions"
        yield Result("alpha", alpha, where, few if alpha is None else "")
        some = unit(features[:PAIRED].double())
        yield Result("uniformity", uniformity(some), where | {"samples": len(some)})
        if model.inputs.kind != "images":
            yield Result("lidar", None, {}, FLAT)
            yield Result("alignment", None, {}, FLAT)
            return
        seen_NVD = self.crops(model, order[: min(self.samples, LIDAR_SAMPLES)], pool)
        if bool((seen_NVD == seen_NVD[:, :1]).all()):
            yield Result("lidar", None, {}, ALIKE)
            yield Result("alignment", None, {}, ALIKE)
            return
        where = where | {"samples": len(seen_NVD)}
        if seen_NVD.shape[2] > WIDEST:
            why = f"of {seen_NVD.shape[2]:,} numbers a square is too large; up to {WIDEST:,}"
            yield Result("lidar", None, where, why)
        else:
            yield Result("lidar", lidar(seen_NVD), where | {"views": self.views})
        apart = (unit(seen_NVD[:, 0]) - unit(seen_NVD[:, 1])).norm(dim=1) ** POWER
        yield Result("alignment", float(apart.mean()), where)

    def crops(self, model: Model, index: Tensor, pool: str) -> Tensor:
        """Features of several crops of each of some samples, float64 (N, V, D)."""
        found: list[list[Tensor]] = [[] for _ in range(len(index))]
        steps = -(-len(index) * self.views // BATCH)
        crops = model.crops("test", BATCH, steps, index=index)
        for crop in model.progress(crops, steps, f"crops of {model.kind}"):
            made = model.encode(crop.images, self.layer, pool).double().cpu()
            for place, row in zip(crop.index.tolist(), made, strict=True):
                found[place].append(row)
        return torch.stack([torch.stack(rows[: self.views]) for rows in found])


def singular(x_ND: Tensor) -> Tensor:
    """Singular values, descending, float64, by the smaller of the two products."""
    N, D = x_ND.shape
    product = torch.zeros(min(N, D), min(N, D), dtype=torch.float64)
    for part in x_ND.split(COLUMNS, dim=0 if D <= N else 1):
        x = part.double()
        product += x.T @ x if D <= N else x @ x.T
    return torch.linalg.eigvalsh(product).clamp(min=0).sqrt().flip(0)


def entropy_rank(values: Tensor, epsilon: float = EPSILON) -> float:
    """E to the entropy of the shares of some values."""
    share = values / values.sum().clamp(min=1e-300) + epsilon
    share = share[share > 0]
    return max(1.0, math.exp(float(-(share * share.log()).sum())))


def decay(variances: Tensor) -> float | None:
    """Minus the slope of log variance over log rank; None where too few directions vary.

    Least squares over ranks FIRST to LAST, weighted by 1 / rank: the tail is rounding, and the
    first few follow no law.
    """
    kept = variances[variances > variances[0] * 1e-12][FIRST - 1 : LAST]
    if len(kept) < 2:
        return None
    rank = torch.arange(FIRST, FIRST + len(kept), dtype=torch.float64)
    weight = (1 / rank) / (1 / rank).sum()
    x, y = rank.log(), kept.log()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return -float((weight * x * y).sum() / (weight * x.square()).sum())


def unit(x: Tensor) -> Tensor:
    """The same of length 1."""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def uniformity(x_ND: Tensor) -> float:
    """Log of the mean of e^(-2 d^2) over all pairs."""
    return float((-SHARPNESS * torch.pdist(x_ND).square()).exp().mean().log())


def lidar(x_NVD: Tensor) -> float:
    """The rank of the scatter between samples, seen by that within them."""
    N, V, D = x_NVD.shape
    means_ND = x_NVD.mean(1)
    between = torch.cov(means_ND.T).reshape(D, D)
    off = (x_NVD - means_ND[:, None]).flatten(0, 1)
    within = off.T @ off / (N * (V - 1)) + WITHIN * torch.eye(D, dtype=x_NVD.dtype)
    values, vectors = torch.linalg.eigh(within)
    white = vectors * values.rsqrt() @ vectors.T
    return entropy_rank(torch.linalg.eigvalsh(white @ between @ white).clamp(min=0))
