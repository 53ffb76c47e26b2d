"""Grid: every k-th patch in rows and columns is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor


class Grid(Masking):
    """Sees a regular grid of patches and hides those between.

    Each k x k cell has k * k places; whole places are hidden in an order drawn per image, so with
    k = 2 and ratio .75 one patch of four is seen at a random phase. Other ratios hide a random
    part of one more place. Source: He et al. 2021, figure 6 "grid-wise sampling",
    arXiv 2111.06377.
    """

    name: ClassVar[str] = "grid"
    k: int = Field(2, ge=2, le=8, description="side of a cell in patches; natural ratios: n / k^2")

    def scores(self, view: View) -> Tensor:
        """The rank of a patch's place in its cell, ties broken at random, float32 (B, L)."""
        import torch

        h, w = view.grid
        rows = torch.arange(h, device=view.device)[:, None] % self.k
        columns = torch.arange(w, device=view.device)[None, :] % self.k
        place_L = (rows * self.k + columns).flatten()
        rank_BP = view.draws.uniform(self.k * self.k).argsort(1).argsort(1)
        return rank_BP[:, place_L] + view.draws.uniform(view.length)
