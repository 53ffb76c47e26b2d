"""What pretraining minimises: how far the guessed mean colour of hidden patches is off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench import Batch, ConfigError, Inputs, Objective, hookimpl, patchify

if TYPE_CHECKING:
    from torch import Tensor, nn


class MeanColour(Objective):
    """Guesses the mean colour of each hidden patch from the mean of what is seen."""

    name: ClassVar[str] = "mean-colour"
    width: PositiveInt = Field(64, description="numbers in the middle layer of the head")

    def build(self, encoder: nn.Module, inputs: Inputs) -> nn.Module:
        """A fresh module around the encoder, which it must hold as `.encoder`."""
        return make_module(self, encoder, inputs)


def make_module(options: MeanColour, encoder: Any, inputs: Inputs) -> nn.Module:
    """The torch module; it is written in a function so that torch is imported only when needed."""
    import torch
    from torch import nn

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder: Any = encoder
            length = encoder.grid[0] * encoder.grid[1]
            # Where a patch lies: without it, all guesses for an image would be the same.
            self.places = nn.Parameter(0.02 * torch.randn(length, encoder.width))
            self.head = nn.Sequential(
                nn.Linear(encoder.width, options.width),
                nn.GELU(),
                nn.Linear(options.width, inputs.channels),
            )

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            """A scalar `loss`; other entries would be logged beside it."""
            if batch.mask is None:
                raise ConfigError(f"objective {options.name!r} needs a masking")
            # The encoder gets the mask and sees nothing of what is hidden.
            seen_BND = self.encoder(batch.images, batch.mask).patches
            guess_BLC = self.head(seen_BND.mean(1, keepdim=True) + self.places)
            patches_BLT = patchify(batch.images, self.encoder.patch)  # the channel comes last
            colour_BLC = patches_BLT.unflatten(2, (-1, inputs.channels)).mean(2)
            error_BL = (guess_BLC.float() - colour_BLC).square().mean(2)
            return {"loss": error_BL[batch.mask.hidden].mean()}  # only hidden patches count

    return Module()


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """What this package brings; maebench asks when it starts."""
    return [MeanColour]
