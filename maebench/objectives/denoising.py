"""The denoising autoencoder, and how images are corrupted.

Shape suffixes: B images, C channels, H W pixels, S = H * W pixels of an image.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Units
from maebench.errors import ConfigError
from maebench.objectives.autoencoder import Autoencoding
from maebench.objectives.decoders import DecoderSize, Decoding
from maebench.objectives.objective import Batch
from maebench.rng import Draws

# Of the shares that Vincent et al. 2010 try (0, .1, .25, .4) the middle one, and their largest
# deviation of those from 0 to .5: theirs is of pixels from 0 to 1, ours of normalised ones.
AMOUNTS = {"gaussian": 0.5, "masking": 0.25, "salt-and-pepper": 0.25}


class Denoising(Decoding):
    """Sees a corrupted copy of the whole image, the noise being new in every step.

    A transformer decoder predicts all pixels of the clean image from all tokens.
    Undoing noise takes knowledge of images, so no narrow code is needed; too little noise is
    undone by smoothing each patch alone.

    loss = mean over all pixels of (x - decode(encode(q(x))))^2; the paper sums over pixels
    q gaussian: x + amount * normal; masking: a share `amount` of the pixels at 0, the mean of
    train; salt-and-pepper: that share at the image's smallest or largest value by a fair coin
    Source: Vincent et al. 2010, JMLR 11, 3371-3408, sections 3.1 and 3.3.
    """

    name: ClassVar[str] = "denoising"
    hides: ClassVar[bool] = False
    corruption: Literal["gaussian", "masking", "salt-and-pepper"] = Field(
        default="gaussian",
        description="kind of noise; all channels of a pixel go together but in gaussian",
    )
    amount: float | None = Field(
        default=None,
        gt=0,
        description="deviation of gaussian noise in normalised units, default 0.5, or else share "
        "of pixels below 1, default 0.25 (Vincent et al. 2010)",
        examples=[0.4],
    )
    bottleneck: Units | None = Field(
        default=None, description="dimension of a linear code of each token; default no such code"
    )

    def model_post_init(self, _: Any) -> None:
        """Refuses to replace every pixel."""
        if self.corruption != "gaussian" and self.noise >= 1:
            raise ValueError(
                f"amount: a share of pixels below 1 with corruption={self.corruption}, "
                f"given {self.amount:g}"
            )

    @property
    def noise(self) -> float:
        """The amount, by the kind of noise where it was left out."""
        return AMOUNTS[self.corruption] if self.amount is None else self.amount

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its decoder freshly initialised.

        Raises:
            ConfigError: the share is of no pixel of an image, or of all.
        """
        pixels = inputs.image_size[0] * inputs.image_size[1]
        if self.corruption != "gaussian" and not 0 < round(self.noise * pixels) < pixels:
            raise ConfigError(
                f"objective.amount: {self.noise:g} of the {pixels} pixels of an image is none or "
                f"all; from {1 / pixels:.2g} to {1 - 1 / pixels:.4g} with this image size"
            )
        size = self.decoder_size(encoder.width, encoder.depth)

        return DenoisingAutoencoder(self, encoder, inputs, size)


class DenoisingAutoencoder(Autoencoding):
    """An autoencoder that sees corrupted images and compared with the clean ones.

    Only the loss corrupts: what it predicts for an evaluation is of the image as it is.
    """

    def __init__(self, options: Denoising, encoder: Any, inputs: Inputs, size: DecoderSize) -> None:
        super().__init__(encoder, inputs, size, options.bottleneck)
        self.corrupt = CORRUPTIONS[options.corruption]
        self.amount = options.noise

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and all pixels of the squared error to the clean image."""
        corrupted = self.corrupt(batch.images, self.amount, batch.draws)
        return {"loss": self.error(self.predict(corrupted), batch.images)}


def gaussian(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """Images (B, C, H, W) plus normal noise of this deviation in every channel."""
    return images + sigma * draws.normal(*images.shape[1:])


def masking(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Images (B, C, H, W), a share of their pixels at 0, the mean of train."""
    return torch.where(chosen(images, share, draws), 0.0, images)


def salt_and_pepper(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Images (B, C, H, W), a share of their pixels black or white by a fair coin.

    Black and white are the smallest and the largest value of the image in each channel.
    """
    where = chosen(images, share, draws)
    white = draws.integers(2, 1, *images.shape[2:]).bool()
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(where, torch.where(white, high, low), images)


def chosen(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Which pixels are replaced, bool (B, 1, H, W): as many in each image, all channels alike.

    Vincent et al. 2010, section 3.3, choose a fixed share of the elements of each example.
    """
    H, W = images.shape[2:]
    order_BS = draws.uniform(H * W).argsort(dim=1, stable=True)
    picked_BS = torch.zeros_like(order_BS, dtype=torch.bool)
    picked_BS.scatter_(1, order_BS[:, : round(share * H * W)], True)
    return picked_BS.view(-1, 1, H, W)


CORRUPTIONS = {"gaussian": gaussian, "masking": masking, "salt-and-pepper": salt_and_pepper}
