"""The masked autoencoder as a torch module.

Shape suffixes: B images, L patches, M patches that are scored, T numbers of a patch.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from maebench.errors import ConfigError
from maebench.masking.mask import Mask, hide
from maebench.masking.patches import take
from maebench.objectives.cross_decoder_module import CrossAttentionDecoder
from maebench.objectives.decoder_module import TransformerDecoder, hidden_places
from maebench.objectives.objective import Batch, Inputs, Reconstruction
from maebench.objectives.targets import LowPass, NormalisedPixels, Pixels, Target
from maebench.objectives.targets_features import Features, deviation_over_images
from maebench.objectives.targets_hog import Hog

if TYPE_CHECKING:
    from maebench.objectives.decoder import DecoderSize
    from maebench.objectives.mae import MAE

# CrossMAE predicts 25 % of all patches at a ratio of .75 (arXiv 2401.14391)
SHARE = Fraction(1, 3)


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder, target and loss; the transformer's parameters have official names."""

    def __init__(self, options: MAE, encoder: Any, size: DecoderSize, inputs: Inputs) -> None:
        super().__init__()
        self.options = options
        self.patch = encoder.patch
        self.target: Any = make_target(options, encoder, inputs)
        self.decoder: Any = make_decoder(options, encoder, size, inputs, self.target.numbers)
        self.encoder: Any = encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and scored patches of the error."""
        if batch.mask is None:
            raise ConfigError("objective 'mae' needs a masking: it scores hidden patches")
        at_BM = self._scored(batch, batch.mask)
        prediction_BMT = self._decode(batch.images, batch.mask, at_BM)
        target_BLT = self.target(batch.images)
        target_BMT = target_BLT if at_BM is None else take(target_BLT, at_BM)
        loss = error_of(self.options.loss, prediction_BMT.float(), target_BMT)
        return {"loss": loss, **self._told(target_BLT)}

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every patch; only those that are scored are trained to mean something."""
        made = self._made(images, mask)
        # a seen patch's own statistics would be most of its pixels
        if self.options.on == "hidden" or made.oracle is not None:
            return made
        nothing = hide(images.new_zeros(mask.hidden.shape), 0, mask.grid)
        return dataclasses.replace(made, whole=self._made(images, nothing).pixels)

    def _made(self, images: Tensor, mask: Mask) -> Reconstruction:
        prediction_BLT = self._decode(images, mask).float()
        return self.target.reconstruction(prediction_BLT, images, mask)

    def _decode(self, images: Tensor, mask: Mask, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, or of those at `at_BM`."""
        return self.decoder(self.encoder(images, mask, self.decoder.layers), at_BM)

    def _scored(self, batch: Batch, mask: Mask) -> Tensor | None:
        """Which patches are scored, int64 (B, M), ascending; None for all."""
        if self.options.on == "all":
            return None
        hidden_BM = hidden_places(mask)
        if self.options.decoder == "transformer":
            return hidden_BM
        count = count_predicted(mask.num_hidden, self.options.share)
        order = batch.draws.uniform(mask.num_hidden).argsort(dim=1, stable=True)
        return hidden_BM.gather(1, order[:, :count].sort(1).values)

    def _told(self, target_BLT: Tensor) -> dict[str, Tensor]:
        """What is logged beside the loss."""
        return {}


class TaughtAutoencoder(MaskedAutoencoder):
    """A masked autoencoder whose target is made by a slow copy of its encoder."""

    def after_step(self, progress: float) -> None:
        """The copy follows; called after each update."""
        self.target.follow(self.encoder)

    def _told(self, target_BLT: Tensor) -> dict[str, Tensor]:
        """How much targets differ between images: near 0, the copy has collapsed."""
        return {"target_std": deviation_over_images(target_BLT)}


def make_target(options: MAE, encoder: Any, inputs: Inputs) -> Target:
    """What is predicted, as the options say.

    Raises:
        ConfigError: an option does not fit this encoder.
    """
    patch = encoder.patch
    if options.target == "hog":
        return Hog(patch, inputs, options.hog_cell)
    if options.target == "low-pass":
        return LowPass(patch, inputs, options.low_pass)
    if options.target == "features":
        return Features(encoder, inputs, options.teacher_layers, options.teacher_decay)
    return Pixels(patch, inputs) if options.target == "pixels" else NormalisedPixels(patch, inputs)


def make_decoder(
    options: MAE, encoder: Any, size: DecoderSize, inputs: Inputs, numbers: int
) -> nn.Module:
    """What predicts, as the options say."""
    if options.decoder == "cross-attention":
        return CrossAttentionDecoder(encoder, size, inputs, numbers)
    return TransformerDecoder(encoder.width, size, encoder, numbers)


def error_of(loss: str, prediction_BMT: Tensor, target_BMT: Tensor) -> Tensor:
    """The mean error under a loss, a scalar."""
    if loss == "smooth-l1":
        return F.smooth_l1_loss(prediction_BMT, target_BMT)  # beta 1, torch's
    error_BMT = prediction_BMT - target_BMT
    return error_BMT.abs().mean() if loss == "l1" else error_BMT.square().mean()


def count_predicted(num_hidden: int, share: float | None) -> int:
    """How many of the hidden patches are predicted: a share, rounded half up, and at least one.

    In fractions of the share as it is written, as ratios are: .15 * 10 is no 1.5 in floats.
    """
    exact = SHARE if share is None else Fraction(str(share))
    return max(1, math.floor(num_hidden * exact + Fraction(1, 2)))
