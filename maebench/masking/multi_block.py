"""Multi-block: several rectangles are hidden, one large rectangle around them is seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveInt

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor

Range = tuple[float, float]


class MultiBlock(Masking):
    """Hides target rectangles and what lies outside of a context rectangle, as I-JEPA does.

    For an exact count, targets are hidden first and one after the other, then what is outside of
    the context, then a random part of the context. Sizes are drawn for each image; the original
    draws them for each batch, and cuts at its end, which drops the lower patches more often.
    Source: Assran et al. 2023, arXiv 2301.08243.
    """

    name: ClassVar[str] = "multi-block"
    version: ClassVar[int] = 2
    targets: PositiveInt = Field(4, le=16, description="number of target rectangles")
    scale: Range = Field(
        (0.15, 0.2),
        description="smallest and largest target, as a share of all patches",
        examples=[(0.05, 0.1), (0.3, 0.4)],
    )
    aspect: Range = Field(
        (0.75, 1.5),
        description="smallest and largest height over width of a target",
        examples=[(0.3, 0.4), (2.0, 3.0)],
    )
    context: Range = Field(
        (0.85, 1.0),
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
        import torch

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
    import torch

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
