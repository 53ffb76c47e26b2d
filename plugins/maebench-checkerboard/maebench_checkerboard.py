"""A masking and an evaluation from another package than maebench."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from maebench import Evaluation, Masking, Metric, Model, Result, View, hookimpl


class Checkerboard(Masking):
    """Hides the fields of one colour first, which colour is drawn per image."""

    name: ClassVar[str] = "checkerboard"
    noise: float = Field(
        default=1.0, ge=0, description="randomness; above 1 fields of both colours mix"
    )

    def scores(self, view: View) -> Tensor:
        """1 for one colour and 0 for the other, plus noise, float32 (B, L)."""
        rows, columns = (torch.arange(n, device=view.device) for n in view.grid)
        colour = (rows[:, None] + columns[None, :]).flatten() % 2
        first = view.draws.integers(2, 1)
        return (colour ^ first).float() + self.noise * view.draws.uniform(view.length)


class EffectiveRank(Evaluation):
    """The number of directions that features really use: e to the entropy of singular values."""

    # Garrido et al. 2022, "RankMe", arXiv 2210.02885, equation 1
    name: ClassVar[str] = "effective-rank"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    metrics: ClassVar[dict[str, Metric]] = {
        "rank": Metric(help="effective rank of the features", low=1, per_example=False, main=True),
    }

    def run(self, model: Model) -> Iterator[Result]:
        """Yields one number; labels are not needed."""
        singular = model.features("test", pool=model.pools()[0]).double().svd().S
        share = singular / singular.sum() + 1e-7  # RankMe's epsilon
        yield Result("rank", float((-(share * share.log()).sum()).exp().clamp(min=1)))


@hookimpl
def register_maskings() -> list[type[Masking]]:
    """The strategy."""
    return [Checkerboard]


@hookimpl
def register_evaluations() -> list[type[Evaluation]]:
    """The task."""
    return [EffectiveRank]
