"""The masked autoencoder as a torch module.

Shape suffixes: B images, L patches, M hidden patches, T numbers of a patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import take
from maebench.objectives.decoder_module import TransformerDecoder, hidden_places
from maebench.objectives.objective import Batch, Inputs, Reconstruction
from maebench.objectives.targets import NormalisedPixels, Pixels, Target

if TYPE_CHECKING:
    from maebench.objectives.decoder import DecoderSize
    from maebench.objectives.mae import MAE

TARGETS = {"pixels": Pixels, "normalised-pixels": NormalisedPixels}


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss; parameters have the names of the official MAE code."""

    def __init__(self, options: MAE, encoder: Any, size: DecoderSize, inputs: Inputs) -> None:
        super().__init__()
        self.patch = encoder.patch
        self.target: Target = TARGETS[options.target](encoder.patch, inputs)
        self.decoder: Any = TransformerDecoder(encoder.width, size, encoder, self.target.numbers)
        self.encoder: Any = encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and hidden patches of the squared error."""
        if batch.mask is None:
            raise ConfigError("objective 'mae' needs a masking: it scores hidden patches")
        hidden_BM = hidden_places(batch.mask)
        prediction_BMT = self._decode(batch.images, batch.mask, hidden_BM)
        target_BMT = take(self.target(batch.images), hidden_BM)
        return {"loss": (prediction_BMT.float() - target_BMT).square().mean()}

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every patch; only hidden ones are trained, so only they mean something."""
        prediction_BLT = self._decode(images, mask).float()
        return self.target.reconstruction(prediction_BLT, images, mask)

    def _decode(self, images: Tensor, mask: Mask, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, or of those at `at_BM`."""
        return self.decoder(self.encoder(images, mask), at_BM)
