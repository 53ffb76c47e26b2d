"""The autoencoder as a torch module; the others that predict a whole image are built on it.

Shape suffixes: B images, L patches, T numbers of a patch, N tokens with the prefix first,
K numbers of a token's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens
from maebench.encoders.vit_module import initialise
from maebench.objectives.decoder_module import TransformerDecoder
from maebench.objectives.objective import Batch, Inputs
from maebench.objectives.whole_module import WholeImage

if TYPE_CHECKING:
    from maebench.objectives.decoder import DecoderSize


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
            self.width, size, encoder, self.target.numbers, fills=False
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
