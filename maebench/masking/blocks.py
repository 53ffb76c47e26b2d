"""Blocks: rectangles of patches are hidden, or seen."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from maebench.masking.mask import Masking, View

TRIES = 30  # rectangles per image: fewer leave more cells to the repair, more change nothing


class Block(Masking):
    """Hides rectangles until the count is reached, as BEiT does, and the count is exact.

    Rectangles are drawn one after the other; one that would hide too much or nothing new is
    passed over. What is missing at the end is taken from those that would have hidden too much.
    Source: Bao et al. 2021, "BEiT", algorithm 1, arXiv 2106.08254; there the count is an upper
    bound.
    """

    name: ClassVar[str] = "block"
    ahead: ClassVar[bool] = True
    smallest: float = Field(
        default=16 / 196,
        gt=0,
        le=1,
        description="smallest rectangle as a share of all patches (BEiT: 16 of 196)",
    )
    aspect: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="flattest rectangle: height over width from this to its inverse",
    )

    def scores(self, view: View) -> Tensor:
        """Minus the number of the rectangle that hides a patch, ties broken at random, (B, L)."""
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
    ahead: ClassVar[bool] = True
    aspect: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="flattest rectangle: height over width from this to its inverse",
    )

    def scores(self, view: View) -> Tensor:
        """A seen cell's number inside the rectangle; above them at random, float32 (B, L)."""
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


Range = tuple[float, float]


class MultiBlock(Masking):
    """Hides target rectangles and what lies outside of a context rectangle, as I-JEPA does.

    For an exact count, targets are hidden first and one after the other, then what is outside of
    the context, then a random part of the context. Sizes are drawn for each image; the original
    draws them for each batch, and cuts at its end, which drops the lower patches more often.
    Source: Assran et al. 2023, arXiv 2301.08243.
    """

    name: ClassVar[str] = "multi-block"
    plane: ClassVar[bool] = True
    version: ClassVar[int] = 2
    ahead: ClassVar[bool] = True
    targets: PositiveInt = Field(default=4, le=16, description="number of target rectangles")
    scale: Range = Field(
        default=(0.15, 0.2),
        description="smallest and largest target, as a share of all patches",
        examples=[(0.05, 0.1), (0.3, 0.4)],
    )
    aspect: Range = Field(
        default=(0.75, 1.5),
        description="smallest and largest height over width of a target",
        examples=[(0.3, 0.4), (2.0, 3.0)],
    )
    context: Range = Field(
        default=(0.85, 1.0),
        description="smallest and largest context, as a share of all patches",
        examples=[(0.3, 0.4), (0.5, 0.6)],
    )

    def model_post_init(self, _: object) -> None:
        """Refuses ranges that are empty or out of bounds."""
        for key, top in (("scale", 1.0), ("aspect", math.inf), ("context", 1.0)):
            low, high = getattr(self, key)
            if not 0 < low <= high <= top:
                bound = f" <= {top:g}" if top < math.inf else ""
                raise ValueError(f"{key}: 0 < smallest <= largest{bound}, given {(low, high)}")

    def scores(self, view: View) -> Tensor:
        """Above all the first target, then the others, then outside of the context, (B, L)."""
        scores_BL = view.draws.uniform(view.length)
        own = view.grid[0] / view.grid[1]  # the context has the image's shape
        context = _rectangles(view, 1, self.context, (own, own))[:, 0]
        level_BL = (~context).float()
        for number, target in enumerate(
            _rectangles(view, self.targets, self.scale, self.aspect).unbind(1)
        ):
            level_BL = torch.where(target & (level_BL < 2), self.targets + 1.0 - number, level_BL)
        return scores_BL + level_BL


def _rectangles(view: View, number: int, scale: Range, aspect: Range) -> Tensor:
    """Random rectangles anywhere inside the image, bool (B, number, L)."""
    H, W = view.grid
    size, shape, y, x = view.draws.uniform(number, 4).unbind(2)
    area = view.length * (scale[0] + (scale[1] - scale[0]) * size)
    ratio = (math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * shape).exp()
    h, w = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    # a rectangle that is too long for the image keeps its area as far as it can
    h, w = torch.where(w > W, area / W, h).round(), torch.where(h > H, area / H, w).round()
    h, w = h.clamp(1, H), w.clamp(1, W)
    inside = []
    for length, side, place in ((H, h, y), (W, w, x)):
        start = (place * (length - side + 1)).floor()[:, :, None]
        at = torch.arange(length, device=view.device)
        inside.append((at >= start) & (at < start + side[:, :, None]))
    return (inside[0][:, :, :, None] & inside[1][:, :, None, :]).flatten(2)
