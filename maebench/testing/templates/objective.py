"""What pretraining minimises: the error of a guess at the mean colour of hidden patches."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from maebench import Batch, ConfigError, EncoderModule, Inputs, Objective, hookimpl, patchify


class MeanColour(Objective):
    """Guesses the mean colour of each hidden patch from the mean of what is seen."""

    name: ClassVar[str] = "mean-colour"
    width: PositiveInt = Field(default=64, description="width of the middle layer of the head")

    def build(self, encoder: EncoderModule, inputs: Inputs) -> ColourGuess:
        """A fresh module around the encoder, which it must hold as `.encoder`."""
        return ColourGuess(encoder, self.width, inputs.channels)


class ColourGuess(nn.Module):
    """The torch module: encoder, head and loss."""

    def __init__(self, encoder: EncoderModule, width: int, channels: int) -> None:
        super().__init__()
        self.encoder, self.channels = encoder, channels
        length = encoder.grid[0] * encoder.grid[1]
        # Where a patch lies: without it, all guesses for an image would be the same.
        self.places = nn.Parameter(0.02 * torch.randn(length, encoder.width))
        self.head = nn.Sequential(
            nn.Linear(encoder.width, width), nn.GELU(), nn.Linear(width, channels)
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """A scalar `loss`; other entries would be logged beside it."""
        if batch.mask is None:
            raise ConfigError("this objective needs a masking")
        # The encoder gets the mask and sees nothing of what is hidden.
        seen_BND = self.encoder(batch.images, batch.mask).patches
        guess_BLC = self.head(seen_BND.mean(1, keepdim=True) + self.places)
        patches_BLT = patchify(batch.images, self.encoder.patch)  # the channel comes last
        colour_BLC = patches_BLT.unflatten(2, (-1, self.channels)).mean(2)
        error_BL = (guess_BLC.float() - colour_BLC).square().mean(2)
        return {"loss": error_BL[batch.mask.hidden].mean()}  # only hidden patches count


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """What this package brings; maebench asks when it starts."""
    return [MeanColour]
