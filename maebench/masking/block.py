"""Block: rectangles are hidden, as in BEiT, with an exact count."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 30  # rectangles per image: fewer leave more cells to the repair, more change nothing


class Block(Masking):
    """Hides rectangles until the count is reached, as BEiT does, and the count is exact.

    Rectangles are drawn one after the other; one that would hide too much or nothing new is
    passed over. What is missing at the end is taken from those that would have hidden too much.
    Source: Bao et al. 2021, "BEiT", algorithm 1, arXiv 2106.08254; there the count is an upper
    bound.
    """

    name: ClassVar[str] = "block"
    smallest: float = Field(
        16 / 196,
        gt=0,
        le=1,
        description="smallest rectangle as a share of all patches (BEiT: 16 of 196)",
    )
    aspect: float = Field(
        0.3,
        gt=0,
        le=1,
        description="flattest rectangle: height over width from this to its inverse",
    )

    def scores(self, view: View) -> Tensor:
        """Minus the number of the rectangle that hides a patch, ties broken at random, (B, L)."""
        import torch

        (H, W), B = view.grid, view.batch
        u_BTk = view.draws.uniform(TRIES, 4)
        rows = torch.arange(H, device=view.device)[None, :, None]
        columns = torch.arange(W, device=view.device)[None, None, :]
        # cells of an accepted rectangle: its number; of one too large: TRIES later; of none: last
        order_BHW = torch.full((B, H, W), 2 * TRIES, device=view.device)
        left_B = torch.full((B,), view.num_hidden, device=view.device)
        low = self.smallest * view.length
        for number in range(TRIES):
            area, shape, y, x = u_BTk[:, number].unbind(1)
            area = low + area * (left_B - low).clamp(min=0)
            aspect = (math.log(self.aspect) * (1 - 2 * shape)).exp()
            # a rectangle leaves a row and a column free, as in BEiT, where there is one to leave
            h = (area * aspect).sqrt().round().clamp(1, max(1, H - 1))
            w = (area / aspect).sqrt().round().clamp(1, max(1, W - 1))
            top, side = (y * (H - h + 1)).floor(), (x * (W - w + 1)).floor()
            inside = _between(rows, top, h) & _between(columns, side, w)
            count = (inside & (order_BHW >= TRIES)).sum((1, 2))
            fits = (count <= left_B) & (left_B > 0)
            # the earlier number stays, and an accepted one, which is smaller, beats one too large
            mine = torch.where(fits, number, TRIES + number)[:, None, None]
            order_BHW = torch.where(inside, torch.minimum(order_BHW, mine), order_BHW)
            left_B = left_B - count * fits
        return -(order_BHW.flatten(1) + view.draws.uniform(view.length))


def _between(place: Tensor, start_B: Tensor, length_B: Tensor) -> Tensor:
    start, end = start_B[:, None, None], (start_B + length_B)[:, None, None]
    return (place >= start) & (place < end)
