"""Inverse block: one rectangle is seen, all around it is hidden."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor


class InverseBlock(Masking):
    """Sees one rectangle and hides the rest, as CAPI does.

    The rectangle is moved over the edges, where it goes on at the other side, so that each
    position is seen equally often. Where its area is more than what is to be seen, its last row or
    its last column is cut, as drawn per image (the original cuts rows, so its rectangles lie flat
    where few patches are seen). Source: Darcet et al. 2025, "Cluster and Predict Latent Patches",
    arXiv 2502.08769.
    """

    name: ClassVar[str] = "inverse-block"
    version: ClassVar[int] = 2
    aspect: float = Field(
        0.5,
        gt=0,
        le=1,
        description="flattest rectangle: height over width from this to its inverse",
    )

    def scores(self, view: View) -> Tensor:
        """A seen cell's number inside the rectangle; above them at random, float32 (B, L)."""
        import torch

        H, W = view.grid
        seen = view.length - view.num_hidden
        shape_B, y_B, x_B, cut_B = view.draws.uniform(4).unbind(1)
        # what is seen has to fit: its height over width lies between seen / W^2 and H^2 / seen
        low = min(max(math.log(self.aspect), math.log(seen / W**2)), math.log(H**2 / seen))
        high = max(min(-math.log(self.aspect), math.log(H**2 / seen)), low)
        aspect = (low + (high - low) * shape_B).exp()
        # 1e-4: the root of a square must not be rounded up
        h_B = ((seen * aspect).sqrt() - 1e-4).ceil().clamp(1, H)
        w_B = ((seen / aspect).sqrt() - 1e-4).ceil().clamp(1, W)
        h_B = torch.maximum(h_B, (seen / w_B - 1e-4).ceil())  # nor be too small for it
        row_BH1 = _from(torch.arange(H, device=view.device), (y_B * H).floor(), H)[:, :, None]
        column_B1W = _from(torch.arange(W, device=view.device), (x_B * W).floor(), W)[:, None]
        inside = (row_BH1 < h_B[:, None, None]) & (column_B1W < w_B[:, None, None])
        by_rows_BL = (row_BH1 * w_B[:, None, None] + column_B1W).flatten(1)
        by_columns_BL = (column_B1W * h_B[:, None, None] + row_BH1).flatten(1)
        number_BL = torch.where(cut_B[:, None] < 0.5, by_rows_BL, by_columns_BL)
        outside_BL = view.length + view.draws.uniform(view.length)
        return torch.where(inside.flatten(1), number_BL, outside_BL)


def _from(place: Tensor, start_B: Tensor, length: int) -> Tensor:
    """How far each place lies after a start, going round, float32 (B, length)."""
    return (place - start_B[:, None]) % length
