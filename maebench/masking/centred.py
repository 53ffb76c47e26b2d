"""Centred and border: one hole in the middle is hidden, or one island in the middle is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor


class Centred(Masking):
    """Hides the patches nearest to the centre: the border has to predict the middle.

    The middle is never seen while pretraining, its positions stay untrained: low scores are a
    finding, not a bug. Source: Pathak et al. 2016, "Context Encoders", central region,
    arXiv 1604.07379.
    """

    name: ClassVar[str] = "centred"
    covers: ClassVar[bool] = False
    shape: Literal["square", "disc"] = Field("square", description="outline of what is cut out")
    jitter: float = Field(0.0, ge=0, description="standard deviation of its centre, in patches")

    def scores(self, view: View) -> Tensor:
        """Minus the distance to the centre, ties broken at random, float32 (B, L)."""
        return -self.distance(view) + self.tie(view)

    def tie(self, view: View) -> Tensor:
        """What orders equal distances at random, and only those, float32 (B, L)."""
        # unmoved distances are whole numbers; moved ones are hardly ever equal
        return view.draws.uniform(view.length) * (1e-3 if self.jitter else 1.0)

    def distance(self, view: View) -> Tensor:
        """The distance to the moved centre, float32 (B, L), whole numbers where it is unmoved."""
        import torch

        h, w = view.grid
        moved_B2 = view.draws.normal(2) * self.jitter
        y = torch.arange(h, device=view.device)[None, :, None] - (h - 1) / 2
        x = torch.arange(w, device=view.device)[None, None, :] - (w - 1) / 2
        dy, dx = y - moved_B2[:, :1, None], x - moved_B2[:, 1:, None]
        if self.shape == "square":
            return (2 * torch.maximum(dy.abs(), dx.abs())).flatten(1)
        return (4 * (dy.square() + dx.square())).flatten(1)


class Border(Centred):
    """Hides the patches farthest from the centre: the middle has to predict the border.

    The border is never seen while pretraining, as the middle never is under `centred`; the
    well-behaved relative is `inverse-block`. Also known as outpainting: Teterwak et al. 2019,
    "Boundless", arXiv 1908.07007.
    """

    name: ClassVar[str] = "border"

    def scores(self, view: View) -> Tensor:
        """The distance to the centre, ties broken at random, float32 (B, L)."""
        return self.distance(view) + self.tie(view)
