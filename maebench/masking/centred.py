"""Centred: one hole in the middle is hidden."""

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
    shape: Literal["square", "disc"] = Field("square", description="outline of the hole")
    jitter: float = Field(
        0.0, ge=0, description="standard deviation of the hole's centre, in patches"
    )

    def scores(self, view: View) -> Tensor:
        """Minus the distance to the centre, ties broken at random, float32 (B, L)."""
        import torch

        h, w = view.grid
        moved_B2 = view.draws.normal(2) * self.jitter
        y = torch.arange(h, device=view.device)[None, :, None] - (h - 1) / 2
        x = torch.arange(w, device=view.device)[None, None, :] - (w - 1) / 2
        dy, dx = y - moved_B2[:, :1, None], x - moved_B2[:, 1:, None]
        # In these units the distances of an unmoved hole are whole numbers: a tie-break below 1
        # orders equal ones only.
        if self.shape == "square":
            distance_BHW = 2 * torch.maximum(dy.abs(), dx.abs())
        else:
            distance_BHW = 4 * (dy.square() + dx.square())
        return view.draws.uniform(view.length) - distance_BHW.flatten(1)
