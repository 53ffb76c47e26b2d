"""Which patches are hidden: whole stripes of them."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from maebench import Masking, View, hookimpl


class Stripes(Masking):
    """Hides stripes of patches, which ones is drawn per image."""

    # The docstring's first line is the help that `maebench list maskings` shows.
    name: ClassVar[str] = "stripes"  # what one types: --masking stripes

    # A field is an option: -o masking.width=2. Every option needs a default and a description.
    width: int = Field(default=1, ge=1, le=8, description="rows or columns of patches in a stripe")
    along: Literal["rows", "columns"] = Field(
        default="rows", description="what a stripe is made of"
    )

    def scores(self, view: View) -> Tensor:
        """One score per patch, float32 (B, L); the highest are hidden, maebench does the count."""
        h, w = view.grid
        rows = torch.arange(h, device=view.device)[:, None].expand(h, w)
        columns = torch.arange(w, device=view.device)[None, :].expand(h, w)
        line_L = (rows if self.along == "rows" else columns).flatten()  # patches go row by row
        # All chance comes from view.draws: it depends on seed, epoch and image, not on the batch.
        stripe_BL = (line_L + view.draws.integers(self.width, 1)) // self.width
        score_BS = view.draws.uniform(max(h, w) + 1)
        # A little noise decides within a stripe that can be hidden only in part.
        return score_BS.gather(1, stripe_BL) + 1e-3 * view.draws.uniform(view.length)


@hookimpl
def register_maskings() -> list[type[Masking]]:
    """What this package brings; maebench asks when it starts."""
    return [Stripes]
