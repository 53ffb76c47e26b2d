"""Uniform: every small cell keeps the same number of patches, which ones is random."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor


class Uniform(Masking):
    """Sees one random patch of each k x k cell, as UM-MAE does; other ratios see more, or fewer.

    With k = 2 and ratio .75 each cell sees exactly one; the places are dealt out in an order that
    is drawn per image, so that each of the four is taken by a quarter of the cells. At other ratios
    cells differ by one patch at most.
    The original's second masking, of seen patches by tokens, is left out.
    Source: Li et al. 2022, arXiv 2205.10063.
    """

    name: ClassVar[str] = "uniform"
    version: ClassVar[int] = 2
    k: int = Field(2, ge=2, le=8, description="side of a cell in patches")

    def scores(self, view: View) -> Tensor:
        """A patch's rank in its cell over the cell's size, ties broken at random, (B, L)."""
        import torch

        (h, w), k = view.grid, self.k
        rows, columns = -(-h // k), -(-w // k)  # a cell at the edge may be cut
        place_BCP = view.draws.uniform(rows * columns, k * k)
        # in an order of its own per image: what does not divide evenly has to go anywhere
        order_BP = view.draws.uniform(k * k).argsort(1)
        dealt_BC = order_BP.gather(1, view.draws.uniform(rows * columns).argsort(1) % (k * k))
        first = torch.arange(k * k, device=view.device) == dealt_BC[:, :, None]
        y, x = torch.arange(h, device=view.device), torch.arange(w, device=view.device)
        there = torch.zeros(rows, columns, k, k, dtype=torch.bool, device=view.device)
        there[y[:, None] // k, x // k, y[:, None] % k, x % k] = True
        # the dealt place comes first, places cut off by the edge last
        key = torch.where(first, -1.0, place_BCP) + 2.0 * ~there.flatten(2).flatten(0, 1)
        rank_BCP = key.argsort(2).argsort(2).float()
        # over the size of its cell, so that one cut by the edge hides the same share
        size_C1 = there.sum((2, 3)).view(-1, 1)
        score_BCP = (rank_BCP + view.draws.uniform(rows * columns, k * k)) / size_C1
        score_BHW = (
            score_BCP.unflatten(2, (k, k))
            .unflatten(1, (rows, columns))
            .transpose(2, 3)
            .reshape(view.batch, rows * k, columns * k)[:, :h, :w]
        )
        return score_BHW.flatten(1)
