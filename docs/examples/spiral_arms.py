"""Which patches are hidden: the arms of a spiral."""

from math import pi
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from maebench import Masking, View, hookimpl


class SpiralArms(Masking):
    """Hides the arms of an Archimedean spiral; its centre, phase and hand are drawn per image."""

    name: ClassVar[str] = "spiral-arms"
    arms: int = Field(default=2, ge=1, le=8, description="number of arms")
    pitch: float = Field(
        default=4.0, gt=0, description="patches from one turn of an arm to its next"
    )

    def scores(self, view: View) -> Tensor:
        """Height on a wave that winds around the centre, float32 (B, L)."""
        (h, w), draws = view.grid, view.draws
        centre, phase, hand = draws.uniform(2), draws.uniform(1), draws.integers(2, 1) * 2 - 1
        y = torch.arange(h, device=view.device).repeat_interleave(w) - centre[:, :1] * (h - 1)
        x = torch.arange(w, device=view.device).repeat(h) - centre[:, 1:] * (w - 1)
        turn = self.arms * hand * torch.atan2(y, x) / (2 * pi) + torch.hypot(y, x) / self.pitch
        return torch.cos(2 * pi * (turn + phase)) + 0.05 * draws.normal(view.length)


@hookimpl
def register_maskings() -> list[type[Masking]]:
    """The strategy."""
    return [SpiralArms]
