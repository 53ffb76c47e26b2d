"""The autoencoder, on which the others that predict a whole image are built.

Shape suffixes: B images, L patches, T dimension of a patch's target, N tokens with the prefix
first, K dimension of a token's code.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.blocks import initialise
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Units
from maebench.masking.mask import Mask
from maebench.masking.patches import hidden_pixels
from maebench.objectives.decoders import DecoderSize, Decoding, TransformerDecoder
from maebench.objectives.objective import Batch, Reconstruction
from maebench.objectives.targets import Pixels


class WholeImage(nn.Module):
    """An encoder that sees every patch; a subclass says what is predicted of an image.

    Args:
        encoder: sees images without a mask.
        inputs: what it is fed.
    """

    def __init__(self, encoder: Any, inputs: Inputs) -> None:
        super().__init__()
        self.target = Pixels(encoder.patch, inputs)
        self.encoder: Any = encoder

    def predict(self, images: Tensor) -> Tensor:
        """The pixels of each patch of images (B, C, H, W), (B, L, T), without anything random."""
        raise NotImplementedError(f"{type(self).__name__} has no predict(images)")

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """What it makes of images whose hidden pixels are 0, the mean of train.

        It has no other way to know that something is missing: this is how it compares with
        objectives that hide patches. `whole` is what it makes of the images as they are.
        """
        seen = torch.where(hidden_pixels(mask, self.target.patch), 0.0, images)
        made = self.target.reconstruction(self.predict(seen).float(), images, mask)
        how = "predicted from the image with hidden pixels at the mean of train"
        return dataclasses.replace(made, how=how, whole=self.predict(images).float())


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
    bottleneck: Units | None = Field(
        default=None,
        description="dimension of the code of a token; default a quarter of that of a patch",
        examples=[3],
    )

    def width(self, encoder: Any, inputs: Inputs) -> int:
        """The dimension of the code of a token."""
        return self.bottleneck or narrow(encoder, inputs)

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, bottleneck and decoder freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)

        return Autoencoding(encoder, inputs, size, self.width(encoder, inputs))

    def notes(self, encoder: Any, inputs: Inputs) -> tuple[str, ...]:
        """Says where nothing keeps the code from copying: no narrow width, penalty or noise."""
        width, covered = self.width(encoder, inputs), dimension_covered(encoder, inputs)
        if min(width, encoder.width) < covered:
            return ()
        return (
            f"objective.bottleneck={width}: not narrower than a patch, of dimension {covered}, so "
            f"that the identity can be learnt; below {covered}, or objective 'sparse', "
            "'contractive', 'denoising'",
        )


def dimension_covered(encoder: Any, inputs: Inputs) -> int:
    """The dimension of a patch, or of all patches that a token of a coarser encoder covers."""
    (H, W), (h, w) = inputs.image_size, encoder.out_grid
    return (H // h) * (W // w) * inputs.channels


def narrow(encoder: Any, inputs: Inputs) -> int:
    """A quarter of the dimension that a token covers, at least 1."""
    return max(1, dimension_covered(encoder, inputs) // NARROW)


class Autoencoding(WholeImage):
    """Encoder, linear code of every token, decoder, and the squared error of all pixels.

    The prefix passes the bottleneck as well: a class token past it would be a way around.

    Args:
        encoder: sees images without a mask.
        inputs: what it is fed.
        size: depth, width and heads of the decoder.
        bottleneck: K; without one the tokens themselves are the code.
    """

    def __init__(
        self, encoder: Any, inputs: Inputs, size: DecoderSize, bottleneck: int | None
    ) -> None:
        super().__init__(encoder, inputs)
        self.width = bottleneck or encoder.width
        self.bottleneck: nn.Module = nn.Identity()
        if bottleneck:
            self.bottleneck = nn.Linear(encoder.width, bottleneck)
            initialise(self.bottleneck)
        self.decoder: Any = TransformerDecoder(
            self.width, size, encoder, self.target.dimension, fills=False
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and all pixels of the squared error."""
        return {"loss": self.error(self.predict(batch.images), batch.images)}

    def predict(self, images: Tensor) -> Tensor:
        """The pixels of each patch of images (B, C, H, W), (B, L, T), without anything random."""
        return self.decode(self.activate(self.encode(images)))

    def encode(self, images: Tensor) -> Tensor:
        """What enters the code of each token, (B, N, K), before `activate`."""
        tokens = self.encoder(images)
        return self.bottleneck(torch.cat([tokens.prefix, tokens.patches], 1))

    def activate(self, x_BNK: Tensor) -> Tensor:
        """The code; linear here, a subclass may bend it."""
        return x_BNK

    def decode(self, code_BNK: Tensor) -> Tensor:
        """Pixels of each patch, (B, L, T), from the codes alone."""
        P = self.encoder.prefix
        return self.decoder(Tokens(code_BNK[:, :P], code_BNK[:, P:], self.encoder.out_grid))

    def error(self, prediction_BLT: Tensor, images: Tensor) -> Tensor:
        """The mean squared error per pixel."""
        return (prediction_BLT.float() - self.target(images)).square().mean()
