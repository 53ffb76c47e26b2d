"""The autoencoder's options, and how many numbers of an image a token covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench.objectives.decoder import Decoding
from maebench.objectives.objective import Inputs

if TYPE_CHECKING:
    from torch import nn

# A quarter is well below what a token covers, where a code cannot copy it, and what the MAE's
# encoder is given of an image at its usual ratio of .75 (arXiv 2111.06377, section 3).
NARROW = 4


class Autoencoder(Decoding):
    """Sees the whole image, but every token has to pass a narrow linear code.

    A transformer decoder predicts all pixels from the codes alone, the class token's included.
    It is the control of what hides patches; a code as wide as a patch may learn the identity.

    loss = mean over all pixels of (x - decode(code(encode(x))))^2; the paper sums over pixels
    Source: Hinton and Salakhutdinov 2006, Science 313, page 504.
    """

    name: ClassVar[str] = "autoencoder"
    hides: ClassVar[bool] = False
    bottleneck: PositiveInt | None = Field(
        None,
        description="numbers of the code of a token; default a quarter of those of a patch",
        examples=[3],
    )

    def width(self, encoder: Any, inputs: Inputs) -> int:
        """How many numbers the code of a token has."""
        return self.bottleneck or narrow(encoder, inputs)

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, bottleneck and decoder freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)
        from maebench.objectives.autoencoder_module import Autoencoding

        return Autoencoding(encoder, inputs, size, self.width(encoder, inputs))

    def notes(self, encoder: Any, inputs: Inputs) -> tuple[str, ...]:
        """Says where nothing keeps the code from copying: no narrow width, penalty or noise."""
        width, covered = self.width(encoder, inputs), numbers_covered(encoder, inputs)
        if min(width, encoder.width) < covered:
            return ()
        return (
            f"objective.bottleneck={width}: not narrower than the {covered} numbers of a patch, so "
            f"that the identity can be learnt; below {covered}, or objective 'sparse', "
            "'contractive', 'denoising'",
        )


def numbers_covered(encoder: Any, inputs: Inputs) -> int:
    """The numbers of a patch, or of all patches that a token of a coarser encoder covers."""
    (H, W), (h, w) = inputs.image_size, encoder.out_grid
    return (H // h) * (W // w) * inputs.channels


def narrow(encoder: Any, inputs: Inputs) -> int:
    """A quarter of the numbers that a token covers, at least 1."""
    return max(1, numbers_covered(encoder, inputs) // NARROW)
